// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// tryTimers sleeps on each processor in turn. Under emulation a processor may get no more timer
// interrupts from some point of the boot on, while the others go on. Then this does not return, the
// guest never says that it is ready, and the host boots it again.
func tryTimers() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("list processors: %w", err)
	}
	for cpu, left := 0, all.Count(); left > 0; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		left--
		var one unix.CPUSet
		one.Set(cpu)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return fmt.Errorf("move to processor %d: %w", cpu, err)
		}
		pause := unix.NsecToTimespec(int64(10 * time.Millisecond))
		if err := unix.Nanosleep(&pause, nil); err != nil && err != unix.EINTR {
			return fmt.Errorf("sleep on processor %d: %w", cpu, err)
		}
	}
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		return fmt.Errorf("move to all processors: %w", err)
	}
	return nil
}
