// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// confine takes from the child what parsing and loading an object does not need: time, memory,
// files that grow, and capabilities. It is no sandbox: an object that takes over the parser stays
// root without capabilities. It can load eBPF programs, and reaches the files and processes of
// root.
func confine() error {
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_CPU: childCPU, unix.RLIMIT_DATA: childData, unix.RLIMIT_NOFILE: 64,
		unix.RLIMIT_FSIZE: 0, unix.RLIMIT_CORE: 0,
	} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("limit the loader: %w", err)
		}
	}
	// Of all threads: Go has made some by now.
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("limit the loader: %w", err)
	}
	return dropCapabilities()
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
