// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

// Memory is an immutable snapshot of the guest memory table, mapped into this
// process. It is reference-counted; the mappings live as long as a snapshot or
// an outstanding [Chain] uses them. All methods may be called from any
// goroutine that holds a reference.
type Memory struct {
	table *guestmem.Snapshot
}

// Region is a piece of guest memory that the frontend shares.
type Region struct {
	// Addr is the guest physical address, Size the length in bytes.
	Addr, Size uint64
}

// RegionFile is a region, and where its bytes are: Size bytes of FD from Offset on.
type RegionFile struct {
	Region
	FD     int
	Offset uint64
}

// Segment is a contiguous piece of guest memory: Addr is its guest physical
// address, and Bytes are the memory itself.
//
// Driver and frontend may change Bytes at any time: read a field once, and inside
// [Guard]. It must not be written to, since such writes are missing from the dirty
// log.
type Segment = guestmem.Segment

// Retain keeps the mappings until a matching Release. The caller must hold a
// reference already.
func (m *Memory) Retain() { m.table.Retain() }

// Release drops a reference.
func (m *Memory) Release() { m.table.Release() }

// Regions returns the regions in ascending order of address.
func (m *Memory) Regions() []Region {
	slots := m.table.Slots()
	rs := make([]Region, len(slots))
	for i, s := range slots {
		rs[i] = Region{Addr: s.GuestAddr, Size: s.Size}
	}
	return rs
}

// Files returns the regions with their files, in ascending order of address. The Memory owns
// the descriptors, which are valid until it is released. Reading a page that the guest never
// used through a file takes no memory, unlike reading it through the mapping. Files returns
// none unless [Device.KeepMemoryFiles] is set.
func (m *Memory) Files() []RegionFile {
	var files []RegionFile
	for _, s := range m.table.Slots() {
		if s.File >= 0 {
			files = append(files, RegionFile{Region{Addr: s.GuestAddr, Size: s.Size}, s.File, s.MmapOffset})
		}
	}
	return files
}

// Segments appends to dst the segments that make up the n bytes at guest
// physical address addr, or fails if some of them are not guest memory. A
// range may span adjacent regions. At the destination of a postcopy migration
// it waits until the bytes have arrived.
func (m *Memory) Segments(dst []Segment, addr, n uint64) ([]Segment, error) {
	return m.table.Segments(dst, addr, n)
}

// ReadAt implements io.ReaderAt over guest physical addresses. A fault is
// returned as a *[MemoryFault].
func (m *Memory) ReadAt(p []byte, addr int64) (n int, err error) {
	segs, err := m.Segments(nil, uint64(addr), uint64(len(p)))
	if err != nil {
		return 0, err
	}
	err = shm.Guard(func() error {
		for _, s := range segs {
			n += copy(p[n:], s.Bytes)
		}
		return nil
	})
	return n, err
}
