// SPDX-License-Identifier: Apache-2.0

// Package eventfd raises eventfds that another process has sent. Both processes share the open
// file description, so its flags must not be changed. Instead, it checks first whether a write
// would block.
package eventfd

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// New makes an eventfd that is non-blocking and closed on exec.
func New() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("make eventfd: %w", os.NewSyscallError("eventfd2", err))
	}
	return fd, nil
}

// FD is an eventfd to raise. The zero value has none. It is not safe for
// concurrent use.
type FD struct {
	// Inband, if set, notifies without a descriptor. It is called if the other side has
	// never set a descriptor. It is not called if the other side has set none on purpose,
	// which means that it wants no notification.
	Inband func()

	fd     int
	has    bool
	blocks bool // it is in blocking mode, in which some frontends give it
	silent bool // there is none on purpose
}

// Replace closes the old descriptor and owns the new one; negative means none.
func (e *FD) Replace(fd int) {
	if e.has {
		unix.Close(e.fd)
	}
	e.fd, e.has, e.silent = fd, fd >= 0, fd < 0
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	e.blocks = err != nil || flags&unix.O_NONBLOCK == 0
}

// Raise adds one to the eventfd. It does not block.
func (e *FD) Raise() error {
	if !e.has {
		if !e.silent && e.Inband != nil {
			e.Inband()
		}
		return nil
	}
	if e.blocks && !writable(e.fd) {
		return nil // the counter is full: the reader wakes up anyway
	}
	return Add(e.fd)
}

// writable says whether a write does not have to wait.
func writable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n > 0
}

// Add adds one to an eventfd that does not block. A full counter, EAGAIN, is as
// good.
func Add(fd int) error {
	one := [8]byte{1}
	if _, err := unix.Write(fd, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("raise eventfd: %w", os.NewSyscallError("write", err))
	}
	return nil
}
