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

// Layout of a packed virtqueue, VIRTIO 1.2 section 2.8.
const (
	packedLen   = 8
	packedID    = 12
	packedFlags = 14

	descAvail = 1 << 7
	descUsed  = 1 << 15

	// An event suppression structure: le16 desc, le16 flags.
	eventDesc    = 0
	eventFlags   = 2
	eventSize    = 4
	eventEnable  = 0
	eventDisable = 1
	eventAtDesc  = 2

	// A position as the protocol and event suppression encode it.
	packedIndex = 1<<15 - 1
	packedWrap  = 1 << 15
)

// packedRing is a virtqueue whose single ring of descriptors both sides write.
//
// A position counts slots modulo twice the ring's size: the wrap counter, which
// begins as 1, is 1 in the first half and 0 in the second.
type packedRing struct {
	dialect
	size   int
	desc   part
	driver []byte // event suppression, by the driver
	device part   // event suppression, by the device

	next uint32 // position of the next chain to fetch
	seen uint32 // first position that had nothing available, as last read
	used uint32 // position of the next used element to publish

	queued      int       // slots that were put after used
	held        heldFlags // flags of the first element that was put
	unsignalled int       // slots published since wantsCall
}

// heldFlags are flags that publish stores.
type heldFlags struct {
	off   int
	flags uint16
}

func (r *packedRing) attach(mem *guestmem.Snapshot, a wire.VringAddr,
	log *guestmem.DirtyLog) error {
	desc, descAddr, err := mem.Ring(a.Desc, uint64(r.size)*descSize, true)
	if err != nil {
		return fmt.Errorf("map descriptor ring: %w", err)
	}
	driver, _, err := mem.Ring(a.Avail, eventSize, false)
	if err != nil {
		return fmt.Errorf("map driver event suppression: %w", err)
	}
	device, deviceAddr, err := mem.Ring(a.Used, eventSize, true)
	if err != nil {
		return fmt.Errorf("map device event suppression: %w", err)
	}
	// Section 2.8: alignment of the three parts.
	if !shm.Aligned(desc, 16) || !shm.Aligned(driver, 4) || !shm.Aligned(device, 4) {
		return errors.New("map ring: its parts are not aligned")
	}
	// Frontends give the device area's address to log by, where a split ring
	// has its used ring; the descriptors have no other address than their own.
	r.driver = driver
	r.desc = part{bytes: desc, addr: descAddr}
	r.device = part{bytes: device, addr: a.Log}
	if mem.Translated() {
		r.device.addr = deviceAddr
	}
	if a.Flags&wire.VringFLog != 0 {
		r.desc.log, r.device.log = log, log
	}
	return nil
}

// decode makes a position of an index and a wrap counter.
func (r *packedRing) decode(v uint16) uint32 {
	pos := uint32(v & packedIndex)
	if v&packedWrap == 0 {
		pos += uint32(r.size)
	}
	return pos
}

func (r *packedRing) encode(pos uint32) uint16 {
	if pos < uint32(r.size) {
		return uint16(pos) | packedWrap
	}
	return uint16(pos - uint32(r.size))
}

// ahead returns the position n slots after pos, or before it. It does without
// a division, since n is no more than the ring's size, unless somebody wrote
// nonsense into the inflight memory.
func (r *packedRing) ahead(pos uint32, n int) uint32 {
	p, end := int(pos)+n, 2*r.size
	for p >= end {
		p -= end
	}
	for p < 0 {
		p += end
	}
	return uint32(p)
}

// distance returns how many slots b is after a.
func (r *packedRing) distance(a, b uint32) int {
	d := int(b) - int(a)
	if d < 0 {
		d += 2 * r.size
	}
	return d
}

func (r *packedRing) off(pos uint32) int {
	i := int(pos)
	if i >= r.size {
		i -= r.size
	}
	return i * descSize
}

func (r *packedRing) begin(base uint32) {
	r.next, r.used = r.decode(uint16(base)), r.decode(uint16(base>>16))
	r.seen = r.next
}

func (r *packedRing) base() uint32 {
	return uint32(r.encode(r.next)) | uint32(r.encode(r.used))<<16
}

// tail returns id and flags of the descriptor at pos, by one load. The rest of
// it was written before.
func (r *packedRing) tail(pos uint32) (id, flags uint16) {
	v := shm.Load32(r.desc.bytes, r.off(pos)+packedID)
	return uint16(v), uint16(v >> 16)
}

// available says whether the driver made the descriptor at pos available.
func (r *packedRing) available(pos uint32) bool {
	_, flags := r.tail(pos)
	return r.areAvailable(pos, flags)
}

// areAvailable says it of the descriptor's flags.
func (r *packedRing) areAvailable(pos uint32, flags uint16) bool {
	wrap := pos < uint32(r.size)
	return (flags&descAvail != 0) == wrap && (flags&descUsed != 0) != wrap
}

func (r *packedRing) fetch(c *Chain) (bool, error) {
	// What is not used yet is not available anew, whatever its flags say.
	room := r.size - r.distance(r.used, r.next)
	pos, d := r.next, r.read(r.next)
	if !r.areAvailable(pos, d.flags) {
		return false, nil
	}
	c.clear()
	n := 0
	for ; ; d = r.read(pos) {
		if n >= room {
			return false, fmt.Errorf("driver has more than %d descriptors outstanding", r.size)
		}
		if c.raw != nil {
			c.raw = append(c.raw, d)
		}
		pos, n = r.ahead(pos, 1), n+1
		c.id, c.slots = d.ref, n // the last descriptor of a chain has its id
		if err := r.collect(c, d); err != nil {
			return false, fmt.Errorf("descriptor chain at %d: %w", int(r.next)%r.size, err)
		}
		if d.flags&descNext == 0 {
			break
		}
	}
	if r.distance(r.next, r.seen) < n {
		r.seen = pos
	}
	r.next = pos
	return true, nil
}

// read copies the descriptor at pos, its flags first.
func (r *packedRing) read(pos uint32) (d desc) {
	d.ref, d.flags = r.tail(pos)
	b := r.desc.bytes[r.off(pos):][:descSize]
	d.addr, d.len = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[packedLen:])
	return d
}

// collect adds what d describes to c.
func (r *packedRing) collect(c *Chain, d desc) error {
	if d.flags&descIndirect == 0 {
		return c.add(d)
	}
	table, err := c.table(d, r.indirect)
	if err != nil {
		return err
	}
	for off := 0; off < len(table); off += descSize {
		// Section 2.8.7: in a table all but the write flag is reserved, and
		// its descriptors follow each other.
		b := table[off:][:descSize]
		flags := binary.LittleEndian.Uint16(b[packedFlags:])
		if flags&descIndirect != 0 {
			return errors.New("indirect descriptor inside an indirect table")
		}
		if err := c.add(desc{
			addr:  binary.LittleEndian.Uint64(b),
			len:   binary.LittleEndian.Uint32(b[packedLen:]),
			flags: flags & descWrite,
		}); err != nil {
			return err
		}
	}
	return nil
}

func (r *packedRing) unfetch(n int) { r.next = r.ahead(r.next, -n) }

// put writes the element over the first of the slots that it completes, as
// section 2.8.9 wants it of a batch of buffers used in order. The flags of the
// first element wait for publish: until then the driver sees none.
func (r *packedRing) put(e usedElem) {
	pos := r.ahead(r.used, r.queued)
	off := r.off(pos)
	flags := uint16(0)
	if e.written > 0 {
		flags |= descWrite
	}
	if pos < uint32(r.size) {
		flags |= descAvail | descUsed
	}
	binary.LittleEndian.PutUint32(r.desc.bytes[off+packedLen:], e.written)
	binary.LittleEndian.PutUint16(r.desc.bytes[off+packedID:], e.id)
	if r.queued == 0 {
		r.desc.mark(off, descSize)
		r.held = heldFlags{off + packedFlags, flags}
	} else {
		r.desc.store16(off+packedFlags, flags)
	}
	r.queued += e.slots
}

func (r *packedRing) publish() {
	if r.queued == 0 {
		return
	}
	r.used = r.ahead(r.used, r.queued)
	r.unsignalled += r.queued
	r.queued = 0
	r.desc.store16(r.held.off, r.held.flags)
}

// takeBack makes a descriptor look as if it was not used, where an element was
// put there and never published.
func (r *packedRing) takeBack(pos uint32) {
	_, flags := r.tail(pos)
	if used := flags&descUsed != 0; used == (pos < uint32(r.size)) {
		r.desc.store16(r.off(pos)+packedFlags, flags^descUsed)
	}
}

func (r *packedRing) wantsCall() bool {
	n := r.unsignalled
	if n == 0 {
		return false
	}
	r.unsignalled = 0
	shm.Fence()
	switch flags := shm.Load16(r.driver, eventFlags); {
	case flags == eventDisable:
		return false
	case flags != eventAtDesc || !r.eventIdx:
		return true
	}
	// Section 2.8.14: the driver's position is one of the last n.
	at := r.decode(shm.Load16(r.driver, eventDesc))
	if at >= uint32(2*r.size) {
		return true // a position that does not exist
	}
	d := r.distance(at, r.used)
	return d != 0 && d <= n
}

func (r *packedRing) fresh() bool {
	was := r.seen
	for r.distance(r.used, r.seen) < r.size {
		if !r.available(r.seen) {
			break
		}
		r.seen = r.ahead(r.seen, 1)
	}
	return r.seen != was
}

func (r *packedRing) forget() { r.seen = r.next }

func (r *packedRing) refuseKicks() { r.device.store16(eventFlags, eventDisable) }

func (r *packedRing) askKicks() {
	if r.eventIdx {
		r.device.store16(eventDesc, r.encode(r.seen))
		r.device.store16(eventFlags, eventAtDesc)
	} else {
		r.device.store16(eventFlags, eventEnable)
	}
	shm.Fence()
}
