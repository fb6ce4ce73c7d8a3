// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// eventFD is an eventfd of the frontend that we raise. The zero value has none.
type eventFD struct {
	fd     int
	has    bool
	blocks bool   // it is in blocking mode, in which some frontends give it
	polled bool   // the frontend asked not to be notified
	inband func() // notifies without a descriptor; nil if there is no way
}

// replace closes the old descriptor and owns the new one; negative means none.
func (e *eventFD) replace(fd int) {
	if e.has {
		unix.Close(e.fd)
	}
	e.fd, e.has, e.polled = fd, fd >= 0, fd < 0
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	e.blocks = err != nil || flags&unix.O_NONBLOCK == 0
}

// raise adds one to the eventfd.
func (e *eventFD) raise() error {
	if !e.has {
		if !e.polled && e.inband != nil {
			e.inband()
		}
		return nil
	}
	if e.blocks && !writable(e.fd) {
		return nil // a full counter is as good
	}
	return addTo(e.fd)
}

// writable says whether a write does not have to wait.
func writable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n > 0
}

// addTo adds one to an eventfd. A full counter, EAGAIN, is as good.
func addTo(fd int) error {
	one := [8]byte{1}
	if _, err := unix.Write(fd, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("raise eventfd: %w", os.NewSyscallError("write", err))
	}
	return nil
}
