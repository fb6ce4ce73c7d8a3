// SPDX-License-Identifier: Apache-2.0

package guestmem

import (
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Slot is one region of guest memory, mapped. It is reference-counted: each
// snapshot that has it holds a reference.
type Slot struct {
	wire.MemRegion
	Mapping *shm.Mapping
	// File is a descriptor of what is mapped, which the slot owns, or -1.
	File int
	data []byte
	refs atomic.Int64
}

// MapSlot maps r from fd, which stays the caller's. With keepFile the slot has a
// descriptor of its own. The result has one reference.
func MapSlot(r wire.MemRegion, fd int, keepFile bool) (_ *Slot, err error) {
	if r.Size == 0 || r.GuestAddr+r.Size < r.GuestAddr || r.UserAddr+r.Size < r.UserAddr {
		return nil, fmt.Errorf("map region %v: size is zero or wraps", r)
	}
	file := -1
	if keepFile {
		if file, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("keep the file of region %v: %w", r, os.NewSyscallError("fcntl", err))
		}
	}
	m, err := shm.Map(fd, r.MmapOffset, r.Size)
	if err != nil {
		closeFile(file)
		return nil, fmt.Errorf("map region %v: %w", r, err)
	}
	s := &Slot{MemRegion: r, Mapping: m, File: file, data: m.Bytes()}
	s.refs.Store(1)
	return s, nil
}

// Retain adds a reference.
func (s *Slot) Retain() { s.refs.Add(1) }

// Release drops a reference. The last one ends the mapping.
func (s *Slot) Release() {
	if s.refs.Add(-1) == 0 {
		// munmap of a mapping that mmap returned does not fail.
		_ = s.Mapping.Unmap()
		closeFile(s.File)
	}
}

func closeFile(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd) // nothing was written by it
	}
}

// ReleaseAll drops a reference to each.
func ReleaseAll(slots []*Slot) {
	for _, s := range slots {
		s.Release()
	}
}

// Told returns the region for the answer to a postcopy memory table: with the address of the
// mapping in this process.
func (s *Slot) Told() wire.MemRegion {
	v := s.MemRegion
	v.UserAddr = shm.Addr(s.data)
	return v
}
