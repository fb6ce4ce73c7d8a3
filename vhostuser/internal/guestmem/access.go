// SPDX-License-Identifier: Apache-2.0

package guestmem

import (
	"fmt"
	"sort"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Segment is a contiguous piece of guest memory.
type Segment struct {
	// Addr is the guest physical address.
	Addr uint64
	// Bytes aliases guest memory.
	Bytes []byte

	iova uint64 // the driver's name for it, where there is an IOMMU
}

// Segments appends to dst the segments that make up the n bytes at guest
// physical address addr, or fails if some of them are not guest memory. A
// range may span adjacent regions. At the destination of a postcopy migration
// it waits until the bytes have arrived.
func (m *Snapshot) Segments(dst []Segment, addr, n uint64) ([]Segment, error) {
	if m.arriving() {
		if err := m.populate(addr, n); err != nil {
			return dst, err
		}
	}
	return m.lookup(dst, addr, n)
}

// lookup is Segments, without the wait.
func (m *Snapshot) lookup(dst []Segment, addr, n uint64) ([]Segment, error) {
	start, want := addr, n
	i := sort.Search(len(m.byGuest), func(i int) bool {
		r := m.byGuest[i]
		return addr < r.GuestAddr+r.Size
	})
	for ; n > 0; i++ {
		if i == len(m.byGuest) || addr < m.byGuest[i].GuestAddr {
			return dst, fmt.Errorf("translate %#x bytes at %#x: %#x is not guest memory", want, start, addr)
		}
		r := m.byGuest[i]
		off := addr - r.GuestAddr
		k := min(n, r.Size-off)
		dst = appendSegment(dst, addr, r.data[off:off+k:off+k], 0)
		addr, n = addr+k, n-k
	}
	return dst, nil
}

// appendSegment appends a segment, and fills it in place. A composite literal would be built
// elsewhere, and copied by loads that are wider than the stores before. That stalls the
// processor for longer than the rest of a lookup takes.
func appendSegment(dst []Segment, addr uint64, b []byte, iova uint64) []Segment {
	dst = append(dst, Segment{})
	s := &dst[len(dst)-1]
	s.Addr, s.Bytes, s.iova = addr, b, iova
	return dst
}

// DMA appends the n bytes that a descriptor names to dst. write says that the
// device writes them. An error may be a [Delay].
func (m *Snapshot) DMA(dst []Segment, addr, n uint64, write bool) ([]Segment, error) {
	have, err := len(dst), error(nil)
	if m.Translated() {
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

// translate is DMA for an I/O virtual address. A range may be scattered.
func (m *Snapshot) translate(dst []Segment, addr, n uint64, perm uint8) ([]Segment, error) {
	for n > 0 {
		e, ok := m.space.TLB.find(addr, perm)
		if !ok {
			return dst, &miss{m.space.TLB, addr, perm}
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

// Check returns an error if the n bytes at off of the writable segments are no longer mapped as
// they were when the driver made them available. Behind an IOMMU the driver can unmap them.
func (m *Snapshot) Check(segs []Segment, off, n uint64) error {
	if !m.Translated() {
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

// Ring returns the n bytes at an address of SET_VRING_ADDR, and the guest
// address of the first. An error may be a [Delay].
func (m *Snapshot) Ring(addr, n uint64, write bool) (b []byte, guest uint64, err error) {
	user := addr
	if m.Translated() {
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

// translateRing returns the frontend's address for a part of a ring. It asks for a missing
// translation in the background, because the message goroutine cannot wait for it.
func (m *Snapshot) translateRing(addr, n uint64, write bool) (user uint64, err error) {
	perm := uint8(wire.IOTLBRead)
	if write {
		perm |= wire.IOTLBWrite // we read our own index there
	}
	for done := uint64(0); done < n; {
		e, ok := m.space.TLB.find(addr+done, perm)
		if !ok {
			d := &miss{m.space.TLB, addr + done, perm}
			m.space.TLB.Want(d.message())
			return 0, d
		}
		if done == 0 {
			user = e.UserAddr
		} else if e.UserAddr != user+done {
			return 0, fmt.Errorf("translate %#x bytes at I/O virtual address %#x: they are scattered", n,
				addr)
		}
		done += min(n-done, e.Size)
	}
	return user, nil
}

// Translated says whether the driver's addresses are I/O virtual ones.
func (m *Snapshot) Translated() bool { return m.space.TLB.On.Load() }

// AddTranslation remembers a translation, if it is one to memory of the table.
func (m *Snapshot) AddTranslation(v wire.IOTLB) error {
	if v.Size == 0 || lastOf(v) < v.IOVA || v.Perm > wire.IOTLBRead|wire.IOTLBWrite {
		return fmt.Errorf("add translation %v: its size or permission cannot be", v)
	}
	if _, _, err := m.find(v.UserAddr, v.Size); err != nil {
		return fmt.Errorf("add translation %v: %w", v, err)
	}
	m.space.TLB.add(v)
	return nil
}

// RemoveTranslations forgets a range of translations, or all if v is zero.
func (m *Snapshot) RemoveTranslations(v wire.IOTLB) error {
	last := lastOf(v) // of zeroes, the last address that there is
	if last < v.IOVA {
		return fmt.Errorf("remove translations %v: the range cannot be", v)
	}
	m.space.TLB.remove(v.IOVA, last)
	return nil
}
