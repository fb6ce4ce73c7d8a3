// SPDX-License-Identifier: Apache-2.0

// Package physmem reads a guest's physical memory from the files that back it,
// while the guest runs.
//
// Reading leaves the files as they are. Looking at a hole through a mapping
// would allocate it, in a memfd as in a file on tmpfs. pread does not: a hole
// reads as zeroes and stays one (Linux: mm/shmem.c, shmem_file_read_iter).
package physmem

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrNoRAM is wrapped by errors about addresses that no region has.
var ErrNoRAM = errors.New("no RAM at this address")

// maxRegions bounds what one guest has.
const maxRegions = 4096

// maxAddress is the end of what x86 can address.
const maxAddress = 1 << 52

// Source is what a region's content is read from. ReadAt gives zeroes for
// holes, allocates nothing, and is safe for concurrent use.
type Source interface {
	io.ReaderAt
}

// Sparse is a source that knows its holes.
type Sparse interface {
	Source
	// NextData returns the first range of bytes, at or after an offset, that
	// may hold something else than zeroes. It returns io.EOF when there is none.
	NextData(offset int64) (start, end int64, err error)
}

// Region is a part of the guest's memory.
type Region struct {
	GPA    uint64 // guest physical address
	Size   uint64 // in bytes
	Source Source
	Offset int64 // of the region within its source
}

// End returns the address behind the region.
func (r Region) End() uint64 { return r.GPA + r.Size }

// Memory is the guest's physical memory. It is safe for concurrent use if its
// sources are. The sources stay the caller's.
type Memory struct {
	regions []Region // by address, disjoint
}

// New returns the memory that the regions make up, in any order.
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

// Regions returns the regions by their addresses. The caller does not change
// them.
func (m *Memory) Regions() []Region { return m.regions }

// Size returns the size of all regions in bytes.
func (m *Memory) Size() (bytes uint64) {
	for _, r := range m.regions {
		bytes += r.Size
	}
	return bytes
}

// Touched returns how many bytes of memory the host has given to the guest so far:
// all but the holes of its files. Where a source knows no holes that is its size.
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

// Contains tells whether all of a range is RAM.
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

// Read fills p from an address on. The guest may be writing at the same time:
// what is read can be torn.
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

// EachData calls f, in order, for each range of a region that may hold
// something else than zeroes. Ranges are whole where the source's are.
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
