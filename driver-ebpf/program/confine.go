// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// childCPU bounds the processor time of a load, in seconds, and of what a child prepares.
const childCPU = 30

// confine takes from the child what parsing and loading an object does not need: time, memory,
// files that grow, and capabilities. It is no sandbox: an object that takes over the parser stays
// root without capabilities. It can load eBPF programs, and reaches the files and processes of
// root. A child that prepares has time for that, too: see limitLoad.
func confine(prepares bool) error {
	// Where memory is scarce this process goes before the agent. Where that cannot be said, it is as
	// any other.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	cpu := uint64(childCPU)
	if prepares {
		cpu += childCPU
	}
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_CPU: cpu, unix.RLIMIT_DATA: childData, unix.RLIMIT_NOFILE: 64,
		unix.RLIMIT_FSIZE: 0, unix.RLIMIT_CORE: 0,
	} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("limit the loader: %w", err)
		}
	}
	// A process with these capabilities could trace another loader, such as one that waits.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("protect the loader: %w", err)
	}
	// Of all threads: Go has made some by now.
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("limit the loader: %w", err)
	}
	return dropCapabilities()
}

// limitLoad bounds what is left of the processor time to that of one load, whatever the child has
// used to prepare. It never raises the limit.
func limitLoad() error {
	var used unix.Rusage
	var limit unix.Rlimit
	err := errors.Join(unix.Getrusage(unix.RUSAGE_SELF, &used),
		unix.Getrlimit(unix.RLIMIT_CPU, &limit))
	if err != nil {
		return fmt.Errorf("read the loader's limit: %w", err)
	}
	// Rounded down: a child that has just begun keeps its limit.
	limit.Max = min(limit.Max, uint64(used.Utime.Sec+used.Stime.Sec)+childCPU)
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_CPU, &limit); err != nil {
		return fmt.Errorf("limit the loader: %w", err)
	}
	return nil
}

// dropCapabilities keeps the two that loading needs, as far as the process has them. Where one
// is missing, as in a container that is older than Linux 5.8, CAP_SYS_ADMIN stands for it.
func dropCapabilities() error {
	now, err := cap.GetPID(0)
	if err != nil {
		return fmt.Errorf("read the loader's capabilities: %w", err)
	}
	keep, missing := []cap.Value{}, false
	for _, c := range []cap.Value{cap.BPF, cap.PERFMON} {
		if has, err := now.GetFlag(cap.Permitted, c); err == nil && has {
			keep = append(keep, c)
		} else {
			missing = true
		}
	}
	if has, err := now.GetFlag(cap.Permitted, cap.SYS_ADMIN); missing && err == nil && has {
		keep = append(keep, cap.SYS_ADMIN)
	}
	set := cap.NewSet()
	for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
		if err := set.SetFlag(flag, true, keep...); err != nil {
			return fmt.Errorf("choose the loader's capabilities: %w", err)
		}
	}
	if err := set.SetProc(); err != nil { // of all threads
		return fmt.Errorf("drop the loader's capabilities: %w", err)
	}
	return nil
}
