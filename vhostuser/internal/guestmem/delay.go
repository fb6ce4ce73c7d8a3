// SPDX-License-Identifier: Apache-2.0

package guestmem

import (
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

// Delay is the error of an access that can succeed later: a translation is missing, or a page
// has not arrived yet. The caller releases its locks before it calls Await.
type Delay interface {
	error
	// Await waits, and returns nil when the access should be tried again, or when stop is
	// closed. An error is final.
	Await(stop <-chan struct{}) error
}

// AsDelay returns the Delay in err, or nil.
func AsDelay(err error) Delay {
	var d Delay
	if errors.As(err, &d) {
		return d
	}
	return nil
}

// IsMiss says whether err is about a translation that was asked for.
func IsMiss(err error) bool { return errors.As(err, new(*miss)) }

// IsAbsent says whether err is about pages that have yet to arrive.
func IsAbsent(err error) bool { return errors.As(err, new(*absent)) }

// absent is the delay of an access to pages that have yet to arrive.
type absent struct {
	space   *Space
	addr, n uint64 // in the guest
}

var _ Delay = (*absent)(nil)

// Error implements error.
func (a *absent) Error() string {
	return fmt.Sprintf("%#x bytes at %#x have yet to arrive", a.n, a.addr)
}

// Await waits for the pages, on a thread that is left behind if stop is closed.
func (a *absent) Await(stop <-chan struct{}) error {
	select {
	case a.space.waits <- struct{}{}:
	case <-stop:
		return nil
	}
	m := a.space.Current()
	done := make(chan error, 1)
	go func() {
		defer func() { <-a.space.waits }()
		defer m.Release()
		done <- m.populate(a.addr, a.n)
	}()
	select {
	case err := <-done:
		return err
	case <-stop:
		return nil
	}
}

// populate waits until n bytes at a guest address are there.
func (m *Snapshot) populate(addr, n uint64) error {
	segs, err := m.lookup(nil, addr, n)
	if err != nil {
		return err
	}
	for _, s := range segs {
		if err := m.space.fetch(s.Bytes); err != nil {
			return fmt.Errorf("wait for pages at %#x: %w", s.Addr, err)
		}
	}
	return nil
}

// fetch waits until the pages of b have arrived, in a system call if the kernel permits that. A
// goroutine that waited in an ordinary access would block the garbage collector, and with it the
// process. Otherwise fetch uses [shm.Touch], which is written for that.
func (s *Space) fetch(b []byte) error {
	if !s.userModeOnly.Load() {
		return shm.Populate(b)
	}
	s.touching.Lock() // each such wait keeps a processor busy, so allow only one
	defer s.touching.Unlock()
	return shm.Guard(func() error { shm.Touch(b); return nil })
}

// present returns an absent delay unless all pages of b, which is at a guest
// address, are there.
func (m *Snapshot) present(b []byte, addr uint64) error {
	if !m.arriving() || shm.Resident(b) {
		return nil
	}
	return &absent{m.space, addr, uint64(len(b))}
}

// arriving says whether pages may have yet to arrive.
func (m *Snapshot) arriving() bool { return m.space.Arriving() }
