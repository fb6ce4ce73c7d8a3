// SPDX-License-Identifier: Apache-2.0

package dma

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Region is memory that a device can reach. Its methods, except Close, are safe for
// concurrent use. Access to the bytes is not synchronized.
type Region struct {
	mem      []byte
	frames   []uint64 // physical page number of each page of mem
	pageSize int
	m        *ebpf.Map // closed with the region; nil if it is not ours
	mapped   bool
}

// New returns a region of size zeroed bytes, rounded up to pages. The caller closes it.
func New(size int) (_ *Region, err error) {
	pageSize := os.Getpagesize()
	size = roundUp(size, pageSize)
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name:       "fbpp_dma",
		Type:       ebpf.Array,
		Flags:      unix.BPF_F_MMAPABLE,
		KeySize:    4,
		ValueSize:  uint32(pageSize),
		MaxEntries: uint32(size / pageSize),
	})
	if err != nil {
		return nil, fmt.Errorf("allocate %d bytes of device memory: %w", size, err)
	}
	r, err := Map(m)
	if err != nil {
		m.Close()
		return nil, err
	}
	r.m = m
	return r, nil
}

// Map returns the memory of an mmap-able array map as a region. The caller closes both; the
// region keeps the memory if the map is closed first.
func Map(m *ebpf.Map) (*Region, error) {
	pageSize := os.Getpagesize()
	size := roundUp(roundUp(int(m.ValueSize()), 8)*int(m.MaxEntries()), pageSize)
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	mem, err := unix.Mmap(m.FD(), 0, size, prot, flags)
	if err != nil {
		return nil, fmt.Errorf("map %v: %w", m, os.NewSyscallError("mmap", err))
	}
	frames, err := lookupFrames(address(mem), size/pageSize, pageSize)
	if err != nil {
		err = fmt.Errorf("find physical pages of %v: %w", m, err)
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	return &Region{mem: mem, frames: frames, pageSize: pageSize, mapped: true}, nil
}

// Fixed returns a region of plain memory that pretends to have these physical page numbers.
// It is for tests, and for transports that copy.
func Fixed(mem []byte, pageSize int, frames []uint64) *Region {
	return &Region{mem: mem, frames: frames, pageSize: pageSize}
}

// Close unmaps the region. No device may use it any more, and slices of it are invalid.
func (r *Region) Close() error {
	var errs []error
	if r.mapped {
		r.mapped = false
		errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(r.mem)))
	}
	if r.m != nil {
		errs = append(errs, r.m.Close())
	}
	r.mem = nil
	return errors.Join(errs...)
}

// Bytes returns the whole region, valid until Close.
func (r *Region) Bytes() []byte { return r.mem }

// Slice returns n bytes from off. It panics if they are not in the region.
func (r *Region) Slice(off, n int) Slice {
	_ = r.mem[off : off+n]
	return Slice{region: r, off: off, n: n}
}

// Locate returns p as a slice of the region, and false if p is not wholly in it. A nil
// region contains nothing.
func (r *Region) Locate(p []byte) (Slice, bool) {
	if r == nil || len(p) == 0 || address(p) < address(r.mem) {
		return Slice{}, false
	}
	off := address(p) - address(r.mem)
	if size := uintptr(len(r.mem)); off > size || uintptr(len(p)) > size-off {
		return Slice{}, false
	}
	return Slice{region: r, off: int(off), n: len(p)}, true
}

// Page returns the i-th page.
func (r *Region) Page(i int) Slice { return r.Slice(i*r.pageSize, r.pageSize) }

// PageSize returns the size of the region's pages in bytes.
func (r *Region) PageSize() int { return r.pageSize }

// Slice is a part of a region. The zero value is empty.
type Slice struct {
	region *Region
	off, n int
}

// Segment is physically contiguous memory.
type Segment struct {
	Addr uint64
	Len  uint32
}

// Len returns the number of bytes.
func (s Slice) Len() int { return s.n }

// Bytes returns the slice's memory, valid until the region is closed.
func (s Slice) Bytes() []byte {
	if s.region == nil {
		return nil
	}
	return s.region.mem[s.off : s.off+s.n : s.off+s.n]
}

// Slice returns n bytes of s from off. It panics if s is shorter.
func (s Slice) Slice(off, n int) Slice {
	if off < 0 || n < 0 || off+n > s.n {
		panic(fmt.Sprintf("dma: slice [%d:%d] of %d bytes", off, off+n, s.n))
	}
	return Slice{region: s.region, off: s.off + off, n: n}
}

// AppendSegments appends the segments of s to dst. It merges contiguous pages.
func (s Slice) AppendSegments(dst []Segment) []Segment {
	first := len(dst)
	for off, end := s.off, s.off+s.n; off < end; {
		page, in := off/s.region.pageSize, off%s.region.pageSize
		n := min(s.region.pageSize-in, end-off)
		addr := s.region.frames[page]*uint64(s.region.pageSize) + uint64(in)
		if last := len(dst) - 1; last >= first && dst[last].Addr+uint64(dst[last].Len) == addr {
			dst[last].Len += uint32(n)
		} else {
			dst = append(dst, Segment{Addr: addr, Len: uint32(n)})
		}
		off += n
	}
	return dst
}

// Addr returns the guest-physical address of a slice that lies in one page.
func (s Slice) Addr() uint64 {
	size := s.region.pageSize
	return s.region.frames[s.off/size]*uint64(size) + uint64(s.off%size)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
