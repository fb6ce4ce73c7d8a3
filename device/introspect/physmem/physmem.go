// SPDX-License-Identifier: Apache-2.0

// Package physmem reads a guest's physical memory from the files that back it,
// while the guest runs.
//
// Reading allocates no memory on the host. In a memfd or a file on tmpfs, reading
// a hole through a mapping would allocate it. pread does not: a hole reads as
// zeroes and stays a hole (Linux: mm/shmem.c, shmem_file_read_iter).
package physmem

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrNoRAM is wrapped by errors about addresses that are in no region.
var ErrNoRAM = errors.New("no RAM at this address")

// maxRegions bounds the regions of one guest.
const maxRegions = 4096

// maxAddress is the end of physical addresses on x86.
const maxAddress = 1 << 52

// Source has the contents of a region. ReadAt returns zeroes for holes, does not
// allocate them, and is safe for concurrent use.
type Source interface {
	io.ReaderAt
}

// Sparse is a source that knows its holes.
type Sparse interface {
	Source
	// NextData returns the first range of bytes at or after an offset that is not
	// a hole. It returns io.EOF when there is none.
	NextData(offset int64) (start, end int64, err error)
}

// Region is a part of the guest's memory.
type Region struct {
	GPA    uint64 // guest physical address
	Size   uint64 // in bytes
	Source Source
	Offset int64 // of the region within its source
}

// End returns the address after the region's last byte.
func (r Region) End() uint64 { return r.GPA + r.Size }

// Memory is the guest's physical memory. It is safe for concurrent use. The caller
// owns the sources and keeps them open.
type Memory struct {
	regions []Region // by address, disjoint
}

// New returns the memory that consists of the regions, which may be in any order.
// It is an error if they overlap, are empty or lie outside of what x86 can address.
func New(regions []Region) (*Memory, error) {
	if len(regions) > maxRegions {
		return nil, fmt.Errorf("describe guest memory: %d regions, at most %d", len(regions), maxRegions)
	}
	m := &Memory{regions: slices.Clone(regions)}
	slices.SortFunc(m.regions, func(a, b Region) int { return cmp.Compare(a.GPA, b.GPA) })
	for i, r := range m.regions {
		switch {
		case r.Source == nil, r.Offset < 0, r.Offset+int64(r.Size) < r.Offset:
			return nil, fmt.Errorf("describe guest memory: region %#x has no source", r.GPA)
		case r.Size == 0, r.GPA > maxAddress, r.Size > maxAddress-r.GPA:
			return nil, fmt.Errorf("describe guest memory: region %#x of %#x bytes", r.GPA, r.Size)
		case i > 0 && m.regions[i-1].End() > r.GPA:
			return nil, fmt.Errorf("describe guest memory: regions overlap at %#x", r.GPA)
		}
	}
	return m, nil
}

// Regions returns the regions, sorted by address. The caller must not change them.
func (m *Memory) Regions() []Region { return m.regions }

// Size returns the size of all regions in bytes.
func (m *Memory) Size() (bytes uint64) {
	for _, r := range m.regions {
		bytes += r.Size
	}
	return bytes
}

// Touched returns for how many bytes of the guest's memory the host has allocated
// memory so far: all but the holes of the files. A source that is not Sparse counts
// in full.
func (m *Memory) Touched() (bytes uint64, err error) {
	for _, r := range m.regions {
		err := EachData(r, func(_, size uint64) error {
			bytes += size
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return bytes, nil
}

// find returns the region that has the address.
func (m *Memory) find(gpa uint64) (Region, bool) {
	i, found := slices.BinarySearchFunc(m.regions, gpa, func(r Region, gpa uint64) int {
		return cmp.Compare(r.GPA, gpa)
	})
	if !found {
		i--
	}
	if i < 0 || gpa >= m.regions[i].End() {
		return Region{}, false
	}
	return m.regions[i], true
}

// Contains says whether all of a range is RAM.
func (m *Memory) Contains(gpa, size uint64) bool {
	for size > 0 {
		r, ok := m.find(gpa)
		if !ok {
			return false
		}
		n := min(size, r.End()-gpa)
		gpa, size = gpa+n, size-n
	}
	return true
}

// Read fills p with the bytes from gpa on. The guest may write at the same time, so
// the result can be torn. The error wraps ErrNoRAM if the range is not all RAM.
func (m *Memory) Read(p []byte, gpa uint64) error {
	for len(p) > 0 {
		r, ok := m.find(gpa)
		if !ok {
			return fmt.Errorf("read guest memory at %#x: %w", gpa, ErrNoRAM)
		}
		n := min(uint64(len(p)), r.End()-gpa)
		if got, err := r.Source.ReadAt(p[:n], r.Offset+int64(gpa-r.GPA)); got < int(n) {
			return fmt.Errorf("read guest memory at %#x: %w", gpa, cmp.Or(err, io.ErrUnexpectedEOF))
		}
		p, gpa = p[n:], gpa+n
	}
	return nil
}

// EachData calls f, in order, for each range of a region that is not a hole: for
// the whole region if its source is not Sparse. An error of f ends it and is
// returned.
func EachData(r Region, f func(gpa, size uint64) error) error {
	sparse, ok := r.Source.(Sparse)
	if !ok {
		return f(r.GPA, r.Size)
	}
	for at, limit := r.Offset, r.Offset+int64(r.Size); at < limit; {
		start, end, err := sparse.NextData(at)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find data of region %#x: %w", r.GPA, err)
		}
		start, end = max(start, at), min(end, limit)
		if start >= end {
			return nil
		}
		if err := f(r.GPA+uint64(start-r.Offset), uint64(end-start)); err != nil {
			return err
		}
		at = end
	}
	return nil
}
