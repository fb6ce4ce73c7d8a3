// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Event is a non-blocking eventfd, as QEMU makes them.
type Event struct {
	// FD is for sending; it belongs to the Event.
	FD   int
	file *os.File
}

// NewEvent makes an eventfd.
func NewEvent() (*Event, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", os.NewSyscallError("eventfd2", err))
	}
	return &Event{FD: fd, file: os.NewFile(uintptr(fd), "eventfd")}, nil
}

// Raise adds one.
func (e *Event) Raise() error {
	_, err := e.file.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

// Wait waits until the counter is not zero, and clears it.
func (e *Event) Wait(timeout time.Duration) error {
	if err := e.file.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	var b [8]byte
	_, err := e.file.Read(b[:])
	if isTimeout(err) {
		return ErrTimeout
	}
	return err
}

// Clear clears the counter and says whether it was set.
func (e *Event) Clear() bool {
	var b [8]byte
	n, err := unix.Read(e.FD, b[:])
	return err == nil && n == len(b)
}

// Close closes the eventfd.
func (e *Event) Close() { _ = e.file.Close() }
