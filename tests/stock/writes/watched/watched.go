// SPDX-License-Identifier: Apache-2.0

// Package watched is linked into a program whose writes to shared memory are watched by
// another process. For each line of its standard input the program makes the kernel forget
// its earlier writes. It answers each with a line: "ok" or an error.
package watched

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

func init() { go answer() }

func answer() {
	var fault userfault
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := fault.forget(); err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println("ok")
		}
	}
}

// userfault is the kernel's means to notice writes.
type userfault struct {
	open func() (int, error)
}

// forget write-protects all shared memory. The program does not notice: the kernel removes
// a page's protection at the first write to it.
func (u *userfault) forget() error {
	if u.open == nil {
		u.open = sync.OnceValues(openUserfault)
	}
	fd, err := u.open()
	if err != nil {
		return fmt.Errorf("open userfaultfd: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.Contains(line, " rw-s ") || !strings.Contains(line, "/memfd:") {
			continue
		}
		var start, end uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
			return fmt.Errorf("read %q: %w", line, err)
		}
		if err := protect(fd, start, end-start); err != nil {
			return err
		}
	}
	return nil
}

// protect protects a range of addresses against writing.
func protect(fd int, start, size uint64) error {
	const (
		registerWP = 0xc020aa00 // UFFDIO_REGISTER
		modeWP     = 1 << 1
		writeWP    = 0xc018aa06 // UFFDIO_WRITEPROTECT
		protectWP  = 1 << 0
	)
	if err := ioctl(fd, registerWP, &[4]uint64{start, size, modeWP, 0}); err != nil {
		return fmt.Errorf("watch memory: %w", err)
	}
	if err := ioctl(fd, writeWP, &[4]uint64{start, size, protectWP, 0}); err != nil {
		return fmt.Errorf("protect memory: %w", err)
	}
	return nil
}

// openUserfault returns a userfaultfd whose faults the kernel handles itself.
func openUserfault() (int, error) {
	const (
		api                = 0xc018aa3f // UFFDIO_API
		version            = 0xaa
		featureShmem       = 1 << 12 // UFFD_FEATURE_WP_HUGETLBFS_SHMEM
		featureUnpopulated = 1 << 13 // UFFD_FEATURE_WP_UNPOPULATED
		featureAsync       = 1 << 15 // UFFD_FEATURE_WP_ASYNC
	)
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("userfaultfd", errno)
	}
	features := [4]uint64{version, featureShmem | featureUnpopulated | featureAsync}
	if err := ioctl(int(fd), api, &features); err != nil {
		unix.Close(int(fd))
		return 0, err
	}
	return int(fd), nil
}
