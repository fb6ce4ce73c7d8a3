// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/eventfd"
)

// kickFD is where the kicks of a started ring come from. The open file
// description is shared with the frontend, so its flags are never changed: a
// descriptor that is not in non-blocking mode is not waited for but ignored,
// and its ring is polled, as is a ring without a descriptor.
//
// A worker waits in a system call, on a thread of its own. The runtime's poller would need
// fewer threads. But it wakes one thread to learn of the kick and another one to serve it,
// which takes longer than many requests do.
type kickFD struct {
	usable bool // else poll

	mu     sync.Mutex // held by wait: the descriptors stay open meanwhile
	fd     int        // negative when closed
	cancel int        // an eventfd that ends waits while it is not zero
}

// newKickFD takes the ownership of fd; negative means that there is none.
func newKickFD(fd int, lg *zap.Logger) *kickFD {
	if fd < 0 {
		return &kickFD{}
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		lg.Warn("kick descriptor is in blocking mode, polling the ring instead")
		unix.Close(fd)
		return &kickFD{}
	}
	cancel, err := eventfd.New()
	if err != nil {
		lg.Warn("cannot wait for kicks, polling the ring instead", zap.Error(err))
		unix.Close(fd)
		return &kickFD{}
	}
	return &kickFD{usable: true, fd: fd, cancel: cancel}
}

// close interrupts a wait that a hanging Kick may yet come to.
func (k *kickFD) close() {
	if k == nil || !k.usable {
		return
	}
	k.interrupt()
	k.mu.Lock()
	defer k.mu.Unlock()
	unix.Close(k.fd)
	unix.Close(k.cancel)
	k.fd, k.cancel = -1, -1
}

// wait waits for a kick and consumes it. It returns errWorkerQuit after an
// interrupt.
func (k *kickFD) wait() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fd < 0 {
		return errWorkerQuit
	}
	for {
		fds := [2]unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN},
			{Fd: int32(k.cancel), Events: unix.POLLIN}}
		_, err := unix.Poll(fds[:], -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait for eventfd: %w", os.NewSyscallError("poll", err))
		case fds[1].Revents != 0:
			return errWorkerQuit
		}
		var count [8]byte
		_, err = unix.Read(k.fd, count[:])
		if err == nil || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("read", err)
		}
	}
}

// interrupt ends a wait, and all later ones until rearm.
func (k *kickFD) interrupt() {
	if k != nil && k.usable {
		_ = eventfd.Add(k.cancel)
	}
}

// rearm ends an interrupt. Nobody waits meanwhile.
func (k *kickFD) rearm() {
	if k.usable {
		var count [8]byte
		_, _ = unix.Read(k.cancel, count[:]) // EAGAIN: there was none
	}
}

// nudge makes the worker call Kick again: it raises the kick descriptor, as the frontend
// does.
func (k *kickFD) nudge() {
	if k != nil && k.usable {
		_ = eventfd.Add(k.fd)
	}
}
