// SPDX-License-Identifier: Apache-2.0

package vhosttest

import "fmt"

// splitDriver is the driver's side of a split ring, VIRTIO 1.2 section 2.7.
type splitDriver struct {
	size              int
	desc, avail, ring ringMem
	eventIdx          func() bool

	availIdx uint16 // next position to fill
	usedIdx  uint16 // next position to look at
	free     []uint16
}

func newSplit(q *Queue) *splitDriver {
	n := uint64(q.Size)
	return &splitDriver{
		size: q.Size, eventIdx: q.eventIdx,
		desc:  q.guest.ringMem(q.Desc, n*16),
		avail: q.guest.ringMem(q.Avail, n*2+6),
		ring:  q.guest.ringMem(q.UsedRing, n*8+6),
	}
}

func (d *splitDriver) reset(idx uint16) {
	d.desc.clear()
	d.avail.clear()
	d.ring.clear()
	d.availIdx, d.usedIdx = idx, idx
	d.avail.store16(2, idx)
	d.ring.store16(2, idx)
	d.free = nil
	for i := range d.size {
		d.free = append(d.free, uint16(i))
	}
}

func (d *splitDriver) base() uint32 { return uint32(d.availIdx) }

func (d *splitDriver) usedBase(*Queue) (uint32, uint16) {
	idx := d.ring.load16(2)
	return uint32(idx), idx
}

func (d *splitDriver) add(ds []Desc) (uint32, chain, error) {
	if len(ds) == 0 || len(ds) > len(d.free) {
		return 0, chain{}, fmt.Errorf("add %d buffers: %d descriptors are free", len(ds), len(d.free))
	}
	ids := d.free[:len(ds):len(ds)]
	d.free = d.free[len(ds):]
	for i, e := range ds {
		if i+1 < len(ds) {
			e.Flags, e.Last = e.Flags|DescNext, ids[i+1]
		}
		var b [16]byte
		d.desc.write(int(ids[i])*16, e.appendTo(b[:0], false))
	}
	d.put(ids[0])
	return uint32(ids[0]), chain{ids: ids, slots: 1}, nil
}

func (d *splitDriver) put(head uint16) {
	d.avail.store16(4+2*d.slot(d.availIdx), head)
	d.availIdx++
	d.avail.store16(2, d.availIdx)
}

func (d *splitDriver) used() (Used, bool) {
	if d.ring.load16(2) == d.usedIdx {
		return Used{}, false
	}
	off := 4 + 8*d.slot(d.usedIdx)
	return Used{Head: d.ring.load32(off), Len: d.ring.load32(off + 4)}, true
}

func (d *splitDriver) skip(cs []chain) {
	for _, c := range cs {
		d.usedIdx++
		d.free = append(d.free, c.ids...)
	}
}

func (d *splitDriver) kickWanted(n int) bool {
	if !d.eventIdx() {
		return d.ring.load16(0)&1 == 0
	}
	return int(d.availIdx-d.ring.load16(4+8*d.size)-1) < n
}

func (d *splitDriver) askCalls() { d.avail.store16(4+2*d.size, d.usedIdx) }

func (d *splitDriver) refuseCalls(on bool) {
	switch {
	case d.eventIdx() && on:
		d.avail.store16(4+2*d.size, d.usedIdx-1) // 65535 chains from now
	case d.eventIdx():
		d.askCalls()
	case on:
		d.avail.store16(0, 1)
	default:
		d.avail.store16(0, 0)
	}
}

func (d *splitDriver) slot(idx uint16) int { return int(idx) % d.size }

// The methods of Queue below are for hostile tests of split rings.

// SetDesc writes descriptor i.
func (q *Queue) SetDesc(i int, addr uint64, n uint32, flags, next uint16) {
	q.guest.Write(q.Desc+uint64(i)*16, EncodeDesc(addr, n, flags, next))
}

// PutAvail makes the chain at head available, whatever it is.
func (q *Queue) PutAvail(head uint16) { q.ring.(*splitDriver).put(head) }

// SetAvailIdx publishes an index, whatever it is.
func (q *Queue) SetAvailIdx(idx uint16) { q.ring.(*splitDriver).avail.store16(2, idx) }

// AvailIdx returns the driver's index.
func (q *Queue) AvailIdx() uint16 { return q.ring.(*splitDriver).availIdx }
