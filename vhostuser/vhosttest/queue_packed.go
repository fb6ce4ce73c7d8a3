// SPDX-License-Identifier: Apache-2.0

package vhosttest

import "fmt"

// Event suppression flags of a packed ring, VIRTIO 1.2 section 2.8.14.
const (
	EventEnable  = 0
	EventDisable = 1
	EventDesc    = 2
)

// packedDriver is the driver's side of a packed ring, section 2.8.
type packedDriver struct {
	size           int
	desc           ringMem
	driver, device ringMem // event suppression structures
	eventIdx       func() bool

	availPos, usedPos packedPos
	count             uint16 // chains that were taken
	room              int    // slots that the device does not have
	ids               []uint16
}

// packedPos is a place in the ring and the wrap counter there.
type packedPos struct {
	idx  int
	wrap bool
}

func (p packedPos) ahead(n, size int) packedPos {
	p.idx += n
	if p.idx >= size {
		p.idx, p.wrap = p.idx-size, !p.wrap
	}
	return p
}

func (p packedPos) encode() uint16 {
	v := uint16(p.idx)
	if p.wrap {
		v |= 1 << 15
	}
	return v
}

func newPacked(q *Queue) *packedDriver {
	return &packedDriver{
		size: q.Size, eventIdx: q.eventIdx,
		desc:   q.guest.ringMem(q.Desc, uint64(q.Size)*16),
		driver: q.guest.ringMem(q.Avail, 4),
		device: q.guest.ringMem(q.UsedRing, 4),
	}
}

// reset starts at slot idx of the ring's first or second lap, which idx counts
// through, and leaves the descriptors as the laps before did.
func (d *packedDriver) reset(idx uint16) {
	lap := int(idx) % (2 * d.size)
	d.availPos = packedPos{idx: lap % d.size, wrap: lap < d.size}
	d.usedPos, d.count, d.room = d.availPos, idx, d.size
	d.desc.clear()
	d.driver.clear()
	d.device.clear()
	for i := range d.size {
		if d.availPos.wrap == (i < d.availPos.idx) {
			d.desc.store16(i*16+14, DescAvail|DescUsed)
		}
	}
	d.ids = nil
	for i := range d.size {
		d.ids = append(d.ids, uint16(i))
	}
}

func (d *packedDriver) base() uint32 {
	return uint32(d.availPos.encode()) | uint32(d.usedPos.encode())<<16
}

func (d *packedDriver) usedBase(q *Queue) (uint32, uint16) {
	pos, n, order := d.usedPos, d.count, q.order
	for {
		u, ok := d.usedAt(pos)
		c, known := q.chains[u.Head]
		if !ok || !known {
			return uint32(pos.encode()) | uint32(pos.encode())<<16, n
		}
		// The rest of a batch, which this element stands for.
		for ; len(order) > 0 && order[0] != u.Head; order = order[1:] {
			pos = pos.ahead(q.chains[order[0]].slots, d.size)
			n++
		}
		if len(order) > 0 {
			order = order[1:]
		}
		pos = pos.ahead(c.slots, d.size)
		n++
	}
}

func (d *packedDriver) add(ds []Desc) (uint32, chain, error) {
	if len(ds) == 0 || len(ds) > d.room || len(d.ids) == 0 {
		return 0, chain{}, fmt.Errorf("add %d buffers: %d slots are free", len(ds), d.room)
	}
	id := d.ids[0]
	d.ids = d.ids[1:]
	head, headFlags := d.availPos, uint16(0)
	for i, e := range ds {
		e.Last = 0xffff // only the last descriptor's id counts
		if i+1 < len(ds) {
			e.Flags |= DescNext
		} else {
			e.Last = id
		}
		if d.availPos.wrap {
			e.Flags |= DescAvail
		} else {
			e.Flags |= DescUsed
		}
		var b [16]byte
		off := d.availPos.idx * 16
		d.desc.write(off, e.appendTo(b[:0], true)[:14])
		if i == 0 {
			headFlags = e.Flags
		} else {
			d.desc.store16(off+14, e.Flags)
		}
		d.availPos = d.availPos.ahead(1, d.size)
	}
	d.desc.store16(head.idx*16+14, headFlags)
	d.room -= len(ds)
	return uint32(id), chain{ids: []uint16{id}, slots: len(ds)}, nil
}

func (d *packedDriver) used() (Used, bool) { return d.usedAt(d.usedPos) }

func (d *packedDriver) usedAt(pos packedPos) (Used, bool) {
	off := pos.idx * 16
	flags := d.desc.load16(off + 14)
	if (flags&DescAvail != 0) != pos.wrap || (flags&DescUsed != 0) != pos.wrap {
		return Used{}, false
	}
	return Used{Head: uint32(d.desc.load16(off + 12)), Len: d.desc.load32(off + 8)}, true
}

func (d *packedDriver) skip(cs []chain) {
	for _, c := range cs {
		d.usedPos = d.usedPos.ahead(c.slots, d.size)
		d.room += c.slots
		d.ids = append(d.ids, c.ids...)
		d.count++
	}
}

// kickWanted counts the slots from the device's position to the driver's.
func (d *packedDriver) kickWanted(n int) bool {
	at := d.device.load16(0)
	switch d.device.load16(2) {
	case EventDisable:
		return false
	case EventDesc:
		back := d.availPos.idx - int(at&0x7fff)
		if d.availPos.wrap != (at>>15 != 0) {
			back += d.size
		}
		return back > 0 && back <= n
	}
	return true
}

func (d *packedDriver) askCalls() {
	d.driver.store16(0, d.usedPos.encode())
	d.driver.store16(2, EventDesc)
}

func (d *packedDriver) refuseCalls(on bool) {
	flags := uint16(EventEnable)
	if on {
		flags = EventDisable
	}
	d.driver.store16(2, flags)
}

// PutPacked writes a descriptor of a packed ring, whatever it is, into slot i:
// for hostile tests.
func (q *Queue) PutPacked(i int, addr uint64, n uint32, id, flags uint16) {
	q.guest.Write(q.Desc+uint64(i)*16, EncodePacked(addr, n, id, flags))
}
