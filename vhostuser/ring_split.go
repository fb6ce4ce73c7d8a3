// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Layout of a split virtqueue, VIRTIO 1.2 section 2.7. Both rings begin with
// le16 flags and le16 idx, and end with the le16 event index of the other
// side's.
const (
	ringFlags  = 0
	ringIdx    = 2
	ringHeader = 4
	ringTail   = 2
	availElem  = 2
	usedElems  = 8 // le32 id, le32 len

	availNoInterrupt = 1 // in the available ring's flags
	usedNoNotify     = 1 // in the used ring's flags
)

// splitRing is a virtqueue with a descriptor table, an available ring and a
// used ring. Indices count modulo 2^16.
type splitRing struct {
	dialect
	size        int
	desc, avail []byte
	used        part

	next        uint16 // next position to fetch from the available ring
	seen        uint16 // the driver's index, as last read
	usedIdx     uint16 // as published
	queued      uint16 // elements put after it
	taken       int    // positions fetched and not put
	unsignalled int    // elements published since wantsCall
}

func (r *splitRing) attach(mem *guestmem.Snapshot, a wire.VringAddr, log *guestmem.DirtyLog) error {
	desc, _, err := mem.Ring(a.Desc, uint64(r.size)*descSize, false)
	if err != nil {
		return fmt.Errorf("map descriptor table: %w", err)
	}
	avail, _, err := mem.Ring(a.Avail, uint64(ringHeader+r.size*availElem+ringTail), false)
	if err != nil {
		return fmt.Errorf("map available ring: %w", err)
	}
	used, guest, err := mem.Ring(a.Used, uint64(ringHeader+r.size*usedElems+ringTail), true)
	if err != nil {
		return fmt.Errorf("map used ring: %w", err)
	}
	// Section 2.7: alignment of the three parts.
	if !shm.Aligned(desc, 16) || !shm.Aligned(avail, 2) || !shm.Aligned(used, 4) {
		return errors.New("map ring: its parts are not aligned")
	}
	r.desc, r.avail = desc, avail
	r.used = part{bytes: used, addr: a.Log}
	if mem.Translated() {
		r.used.addr = guest // the address to log by is one to translate, too
	}
	if a.Flags&wire.VringFLog != 0 {
		r.used.log = log
	}
	return nil
}

func (r *splitRing) begin(base uint32) {
	r.next, r.seen = uint16(base), uint16(base)
	r.usedIdx = r.used.load16(ringIdx)
}

func (r *splitRing) base() uint32 { return uint32(r.next) }

func (r *splitRing) availIdx() uint16 { return shm.Load16(r.avail, ringIdx) }

func (r *splitRing) fetch(c *Chain) (bool, error) {
	if r.seen == r.next {
		// The driver wrote everything that it made available before the index.
		r.seen = r.availIdx()
	}
	waiting := r.seen - r.next
	if waiting == 0 {
		return false, nil
	}
	if int(waiting) > r.size {
		return false, fmt.Errorf("available index is %d ahead in a ring of %d", waiting, r.size)
	}
	if r.taken == r.size {
		return false, fmt.Errorf("driver has more than %d buffers outstanding", r.size)
	}
	head := binary.LittleEndian.Uint16(r.avail[ringHeader+r.slot(r.next)*availElem:])
	if int(head) >= r.size {
		return false, fmt.Errorf("available descriptor %d is outside a table of %d", head, r.size)
	}
	if err := r.collect(c, head); err != nil {
		return false, err
	}
	r.next++
	r.taken++
	return true, nil
}

// collect fills c with the chain at head. It reads every descriptor once, and
// never more of them than the table holds, so a loop is found.
func (r *splitRing) collect(c *Chain, head uint16) error {
	c.clear()
	c.id, c.slots = head, 1
	table, limit, indirect := r.desc, r.size, false
	for i, seen := int(head), 0; ; seen++ {
		if seen == limit {
			return fmt.Errorf("descriptor chain %d: descriptors form a loop", head)
		}
		d := splitDesc(table, i)
		if d.flags&descIndirect != 0 {
			if indirect {
				return fmt.Errorf("descriptor chain %d: indirect descriptor inside an indirect table", head)
			}
			var err error
			if table, err = c.table(d, r.indirect); err != nil {
				return fmt.Errorf("descriptor chain %d: %w", head, err)
			}
			indirect, limit = true, len(table)/descSize
			i, seen = 0, -1
			continue
		}
		if err := c.add(d); err != nil {
			return fmt.Errorf("descriptor chain %d: %w", head, err)
		}
		if d.flags&descNext == 0 {
			return nil
		}
		if i = int(d.ref); i >= limit {
			return fmt.Errorf("descriptor chain %d: next descriptor %d is outside a table of %d", head, i,
				limit)
		}
	}
}

func splitDesc(table []byte, i int) desc {
	b := table[i*descSize:][:descSize]
	return desc{
		addr:  binary.LittleEndian.Uint64(b),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		ref:   binary.LittleEndian.Uint16(b[14:]),
	}
}

func (r *splitRing) unfetch(n int) {
	r.next -= uint16(n)
	r.taken -= n
}

// put writes the element at the first of the positions that it completes, as
// section 2.7.9 wants it of a batch of buffers used in order.
func (r *splitRing) put(e usedElem) {
	r.used.store64(ringHeader+r.slot(r.usedIdx+r.queued)*usedElems, uint32(e.id), e.written)
	r.queued += uint16(e.slots)
	r.taken -= e.slots
}

func (r *splitRing) publish() {
	if r.queued == 0 {
		return
	}
	r.usedIdx += r.queued
	r.unsignalled += int(r.queued)
	r.queued = 0
	r.used.store16(ringIdx, r.usedIdx)
}

func (r *splitRing) wantsCall() bool {
	n := r.unsignalled
	if n == 0 {
		return false
	}
	r.unsignalled = 0
	shm.Fence()
	if !r.eventIdx {
		return shm.Load16(r.avail, ringFlags)&availNoInterrupt == 0
	}
	// Section 2.7.7.2: used_event is one of the last n positions.
	event := shm.Load16(r.avail, ringHeader+r.size*availElem)
	return int(r.usedIdx-event-1) < n
}

func (r *splitRing) fresh() bool {
	idx := r.availIdx()
	if idx == r.seen {
		return false
	}
	r.seen = idx
	return true
}

func (r *splitRing) forget() { r.seen = r.next }

// refuseKicks does nothing with EVENT_IDX: an avail_event that is left behind
// asks for none, or for one in 65536 buffers.
func (r *splitRing) refuseKicks() {
	if !r.eventIdx {
		r.used.store16(ringFlags, usedNoNotify)
	}
}

func (r *splitRing) askKicks() {
	if r.eventIdx {
		r.used.store16(ringHeader+r.size*usedElems, r.seen)
	}
	// With EVENT_IDX, too: a backend before us may have set it.
	if r.used.load16(ringFlags) != 0 {
		r.used.store16(ringFlags, 0)
	}
	shm.Fence()
}

func (r *splitRing) slot(pos uint16) int { return int(pos) & (r.size - 1) }
