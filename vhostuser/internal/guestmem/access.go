// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Region is a piece of guest memory that the frontend shares.
type Region struct {
	// Addr is the guest physical address, Size the length in bytes.
	Addr, Size uint64
}

// Memory is an immutable snapshot of the guest memory table, mapped into this
// process. It is reference-counted; the mappings live as long as a snapshot or
// an outstanding [Chain] uses them. All methods may be called from any
// goroutine that holds a reference.
type Memory struct {
	regions []*region // ascending by guest address, disjoint
	refs    atomic.Int64
	tlb     *iotlb   // of the connection
	b       *Backend // nil: no pages are missing
}

// region is one mapped region. Snapshots share it.
type region struct {
	wire.MemRegion
	mapping *shm.Mapping
	data    []byte
	refs    atomic.Int64
}

// mapRegion maps r from fd, which stays the caller's. The result has one
// reference.
func mapRegion(r wire.MemRegion, fd int) (*region, error) {
	if r.Size == 0 || r.GuestAddr+r.Size < r.GuestAddr || r.UserAddr+r.Size < r.UserAddr {
		return nil, fmt.Errorf("map region %v: size is zero or wraps", r)
	}
	m, err := shm.Map(fd, r.MmapOffset, r.Size)
	if err != nil {
		return nil, fmt.Errorf("map region %v: %w", r, err)
	}
	reg := &region{MemRegion: r, mapping: m, data: m.Bytes()}
	reg.refs.Store(1)
	return reg, nil
}

func (r *region) release() {
	if r.refs.Add(-1) == 0 {
		// munmap of a mapping that mmap returned does not fail.
		_ = r.mapping.Unmap()
	}
}

func (r *region) overlaps(o *region) bool {
	return r.GuestAddr < o.GuestAddr+o.Size && o.GuestAddr < r.GuestAddr+r.Size ||
		r.UserAddr < o.UserAddr+o.Size && o.UserAddr < r.UserAddr+r.Size
}

// newMemory makes a snapshot with one reference, and with references of its
// own to the regions.
func newMemory(regions []*region) (*Memory, error) {
	m := &Memory{regions: slices.Clone(regions)}
	slices.SortFunc(m.regions, func(a, b *region) int {
		if a.GuestAddr < b.GuestAddr {
			return -1
		}
		return 1
	})
	for i, r := range m.regions {
		for _, o := range m.regions[:i] {
			if r.overlaps(o) {
				return nil, fmt.Errorf("build memory table: %v overlaps %v", r.MemRegion, o.MemRegion)
			}
		}
	}
	for _, r := range m.regions {
		r.refs.Add(1)
	}
	m.refs.Store(1)
	return m, nil
}

// Retain keeps the mappings until a matching Release. The caller must hold a
// reference already.
func (m *Memory) Retain() { m.refs.Add(1) }

// Release drops a reference.
func (m *Memory) Release() {
	if m.refs.Add(-1) == 0 {
		for _, r := range m.regions {
			r.release()
		}
	}
}

// Regions returns the regions in ascending order of address.
func (m *Memory) Regions() []Region {
	rs := make([]Region, len(m.regions))
	for i, r := range m.regions {
		rs[i] = Region{Addr: r.GuestAddr, Size: r.Size}
	}
	return rs
}

// Segments appends to dst the segments that make up the n bytes at guest
// physical address addr, or fails if some of them are not guest memory. A
// range may span adjacent regions. At the destination of a postcopy migration
// it waits until the bytes have arrived.
func (m *Memory) Segments(dst []Segment, addr, n uint64) ([]Segment, error) {
	if m.arriving() {
		if err := m.populate(addr, n); err != nil {
			return dst, err
		}
	}
	return m.lookup(dst, addr, n)
}

// lookup is Segments, without the wait.
func (m *Memory) lookup(dst []Segment, addr, n uint64) ([]Segment, error) {
	start, want := addr, n
	i := sort.Search(len(m.regions), func(i int) bool {
		r := m.regions[i]
		return addr < r.GuestAddr+r.Size
	})
	for ; n > 0; i++ {
		if i == len(m.regions) || addr < m.regions[i].GuestAddr {
			return dst, fmt.Errorf("translate %#x bytes at %#x: %#x is not guest memory", want, start, addr)
		}
		r := m.regions[i]
		off := addr - r.GuestAddr
		k := min(n, r.Size-off)
		dst = appendSegment(dst, addr, r.data[off:off+k:off+k], 0)
		addr, n = addr+k, n-k
	}
	return dst, nil
}

// appendSegment appends a segment. It fills it in place: a composite literal
// would be built elsewhere and copied by loads that are wider than the stores
// before them, which stalls the processor for longer than all the rest of a
// lookup takes.
func appendSegment(dst []Segment, addr uint64, b []byte, iova uint64) []Segment {
	dst = append(dst, Segment{})
	s := &dst[len(dst)-1]
	s.Addr, s.Bytes, s.iova = addr, b, iova
	return dst
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

// dma appends the n bytes that a descriptor names to dst. write says that the
// device writes them. An error may be a [delay].
func (m *Memory) dma(dst []Segment, addr, n uint64, write bool) ([]Segment, error) {
	have, err := len(dst), error(nil)
	if m.translated() {
		perm := uint8(wire.IOTLBRead)
		if write {
			perm = wire.IOTLBWrite
		}
		dst, err = m.translate(dst, addr, n, perm)
	} else {
		dst, err = m.lookup(dst, addr, n)
	}
	if err != nil || !m.arriving() {
		return dst, err
	}
	for i := have; i < len(dst); i++ {
		if err := m.present(dst[i].Bytes, dst[i].Addr); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// translate is dma for an I/O virtual address. A range may be scattered.
func (m *Memory) translate(dst []Segment, addr, n uint64, perm uint8) ([]Segment, error) {
	for n > 0 {
		e, ok := m.tlb.find(addr, perm)
		if !ok {
			return dst, &miss{m.tlb, addr, perm}
		}
		k := min(n, e.Size)
		r, b, err := m.find(e.UserAddr, k)
		if err != nil {
			return dst, err
		}
		dst = appendSegment(dst, r.GuestAddr+e.UserAddr-r.UserAddr, b, addr)
		addr, n = addr+k, n-k
	}
	return dst, nil
}

// check says whether the n bytes at off of the writable segments are still
// where they were when the driver made them available. Where there is an IOMMU
// the driver can take them away.
func (m *Memory) check(segs []Segment, off, n uint64) error {
	if !m.translated() {
		return nil
	}
	for _, s := range segs {
		size := uint64(len(s.Bytes))
		switch {
		case n == 0:
			return nil
		case off >= size:
			off -= size
			continue
		}
		now, err := m.translate(nil, s.iova, size, wire.IOTLBWrite)
		if err != nil {
			return fmt.Errorf("memory was taken from the device: %w", err)
		}
		for _, piece := range now {
			if piece.Addr != s.Addr+(piece.iova-s.iova) {
				return fmt.Errorf("memory at I/O virtual address %#x was taken from the device", piece.iova)
			}
		}
		n -= min(n, size-off)
		off = 0
	}
	return nil
}

// ring returns the n bytes at an address of SET_VRING_ADDR, and the guest
// address of the first. An error may be a [delay].
func (m *Memory) ring(addr, n uint64, write bool) (b []byte, guest uint64, err error) {
	user := addr
	if m.translated() {
		if user, err = m.translateRing(addr, n, write); err != nil {
			return nil, 0, err
		}
	}
	r, b, err := m.find(user, n)
	if err != nil {
		return nil, 0, err
	}
	guest = r.GuestAddr + user - r.UserAddr
	return b, guest, m.present(b, guest)
}

// translateRing returns the frontend's address for a part of a ring. A miss is
// asked for in the background, since the message goroutine cannot wait for it.
func (m *Memory) translateRing(addr, n uint64, write bool) (user uint64, err error) {
	perm := uint8(wire.IOTLBRead)
	if write {
		perm |= wire.IOTLBWrite // we read our own index there
	}
	for done := uint64(0); done < n; {
		e, ok := m.tlb.find(addr+done, perm)
		if !ok {
			d := &miss{m.tlb, addr + done, perm}
			m.tlb.want(d.message())
			return 0, d
		}
		if done == 0 {
			user = e.UserAddr
		} else if e.UserAddr != user+done {
			return 0, fmt.Errorf("translate %#x bytes at I/O virtual address %#x: they are scattered", n, addr)
		}
		done += min(n-done, e.Size)
	}
	return user, nil
}

// translated says whether the driver's addresses are I/O virtual ones.
func (m *Memory) translated() bool { return m.tlb != nil && m.tlb.on.Load() }

// user translates n bytes at an address of the frontend's process, which must
// lie in one region, and returns its memory.
func (m *Memory) user(addr, n uint64) ([]byte, error) {
	_, b, err := m.find(addr, n)
	return b, err
}

// find is user, and returns the region, too.
func (m *Memory) find(addr, n uint64) (*region, []byte, error) {
	for _, r := range m.regions {
		off := addr - r.UserAddr
		if addr >= r.UserAddr && off < r.Size && n <= r.Size-off {
			return r, r.data[off : off+n : off+n], nil
		}
	}
	return nil, nil, fmt.Errorf("translate %#x bytes at frontend address %#x: no region holds them", n, addr)
}

// entry returns the region that r describes, for removal. The offset does not
// identify a region (vhost-user.rst, VHOST_USER_REM_MEM_REG).
func entry(regions []*region, r wire.MemRegion) *region {
	for _, have := range regions {
		if have.GuestAddr == r.GuestAddr && have.UserAddr == r.UserAddr && have.Size == r.Size {
			return have
		}
	}
	return nil
}
