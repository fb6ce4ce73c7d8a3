// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// QueueRegionPacked and DescStatePacked of vhost-user.rst. What the device has
// completed is in fields of its own and, once it is published, in their old
// twins.
const (
	packedFlightFree    = 12 // le16 free_head
	packedFlightOldFree = 14 // le16 old_free_head
	packedFlightUsed    = 16 // le16 used_idx
	packedFlightOldUsed = 18 // le16 old_used_idx
	packedFlightWrap    = 20 // u8 used_wrap_counter
	packedFlightOldWrap = 21 // u8 old_used_wrap_counter
	packedFlightHeader  = 32 // with padding, of the entries' alignment, too

	packedFlightEntry   = 32
	packedEntryInflight = 0  // u8
	packedEntryNext     = 2  // le16
	packedEntryLast     = 4  // le16
	packedEntryNum      = 6  // le16
	packedEntryCounter  = 8  // le64
	packedEntryID       = 16 // le16
	packedEntryFlags    = 18 // le16
	packedEntryLen      = 20 // le32
	packedEntryAddr     = 24 // le64
)

// packedFlight tracks a packed ring. There, used elements overwrite descriptors in flight, so
// it keeps a copy of each descriptor. The index of the copy of a chain's first descriptor
// identifies the chain.
type packedFlight struct {
	area
	ring    *packedRing
	limit   int
	counter uint64
	batch   []uint16 // completed and not settled
	slots   int      // of batch
}

func (f *packedFlight) at(entry uint16) int {
	return packedFlightHeader + int(entry)*packedFlightEntry
}

// position returns a position that is stored as an index and a wrap counter.
func (f *packedFlight) position(idx, wrap int) uint32 {
	v := f.load16(idx) & packedIndex
	if f.b[wrap] != 0 {
		v |= packedWrap
	}
	// The frontend may have changed it since it was checked: ahead makes it valid.
	return f.ring.ahead(f.ring.decode(v), 0)
}

// storePosition stores the index first. With the new index and the old wrap
// counter, the slot that both name is in no case available.
func (f *packedFlight) storePosition(idx, wrap int, pos uint32) {
	v := f.ring.encode(pos)
	f.store16(idx, v&packedIndex)
	f.store8(wrap, uint8(v>>15))
}

func (f *packedFlight) recover() ([]uint16, error) {
	if !f.initialised() {
		f.initialise(f.limit, func() {
			f.link(make([]bool, f.limit))
			f.storePosition(packedFlightUsed, packedFlightWrap, f.ring.used)
			f.storePosition(packedFlightOldUsed, packedFlightOldWrap, f.ring.used)
		})
		return nil, nil
	}
	if err := f.check(f.limit); err != nil {
		return nil, err
	}
	for _, off := range []int{packedFlightUsed, packedFlightOldUsed} {
		if i := int(f.load16(off)); i >= f.ring.size {
			return nil, fmt.Errorf("inflight memory has used index %d in a ring of %d", i, f.ring.size)
		}
	}
	f.finishBatch()
	if err := f.clearFree(); err != nil {
		return nil, err
	}
	entries, slots, err := f.inFlight()
	if err != nil {
		return nil, err
	}
	f.ring.used = f.position(packedFlightUsed, packedFlightWrap)
	// What was fetched and not used is all in flight.
	f.ring.next = f.ring.ahead(f.ring.used, slots)
	f.ring.seen = f.ring.next
	// If the batch was not published, all its elements except the first have their
	// flags already. The driver does not read them before the first one is published.
	for i := 1; i < slots; i++ {
		f.ring.takeBack(f.ring.ahead(f.ring.used, i))
	}
	return entries, nil
}

// finishBatch handles the last batch of a backend that died. It records the batch as complete
// if that was published, and discards it otherwise.
func (f *packedFlight) finishBatch() {
	old := f.position(packedFlightOldUsed, packedFlightOldWrap)
	if f.position(packedFlightUsed, packedFlightWrap) != old {
		// The first descriptor of the batch is published last. It is no longer
		// available as it was if the driver saw it used, whatever came then.
		if !f.ring.available(old) {
			f.note()
		}
	}
	f.store16(packedFlightFree, f.load16(packedFlightOldFree))
	f.storePosition(packedFlightUsed, packedFlightWrap,
		f.position(packedFlightOldUsed, packedFlightOldWrap))
}

// clearFree takes all entries of the free list out of flight.
func (f *packedFlight) clearFree() error {
	entry := f.load16(packedFlightFree)
	for n := 0; int(entry) < f.limit; n++ {
		if n == f.limit {
			return errors.New("inflight memory has a loop in its free list")
		}
		f.store8(f.at(entry)+packedEntryInflight, 0)
		entry = f.load16(f.at(entry) + packedEntryNext)
	}
	return nil
}

// inFlight returns the entries in flight by the order of fetching, and the
// slots that they take. All other entries become the free list.
func (f *packedFlight) inFlight() (entries []uint16, slots int, err error) {
	taken := make([]bool, f.limit)
	for i := range f.limit {
		head := uint16(i)
		if f.b[f.at(head)+packedEntryInflight] != 1 {
			continue
		}
		entries = append(entries, head)
		if err := f.each(head, func(entry uint16) error {
			if taken[entry] {
				return fmt.Errorf("inflight memory has entry %d in two chains", entry)
			}
			taken[entry] = true
			slots++
			return nil
		}); err != nil {
			return nil, 0, err
		}
	}
	if slots > f.ring.size {
		return nil, 0, fmt.Errorf("inflight memory has %d descriptors in flight in a ring of %d", slots,
			f.ring.size)
	}
	slices.SortFunc(entries, func(a, b uint16) int {
		return cmp.Compare(f.load64(f.at(a)+packedEntryCounter), f.load64(f.at(b)+packedEntryCounter))
	})
	if n := len(entries); n > 0 {
		f.counter = f.load64(f.at(entries[n-1])+packedEntryCounter) + 1
	}
	f.link(taken)
	return entries, slots, nil
}

// each calls fn with the entries of a chain.
func (f *packedFlight) each(head uint16, fn func(entry uint16) error) error {
	entry := head
	num := int(f.load16(f.at(head) + packedEntryNum))
	if num == 0 || num > f.limit {
		return fmt.Errorf("inflight memory has a chain of %d descriptors", num)
	}
	for range num {
		if int(entry) >= f.limit {
			return fmt.Errorf("inflight memory has entry %d of %d", entry, f.limit)
		}
		if err := fn(entry); err != nil {
			return err
		}
		entry = f.load16(f.at(entry) + packedEntryNext)
	}
	return nil
}

// link makes a free list of the entries that are not taken. A number outside
// ends it.
func (f *packedFlight) link(taken []bool) {
	next := uint16(f.limit)
	for i := f.limit - 1; i >= 0; i-- {
		if !taken[i] {
			f.store16(f.at(uint16(i))+packedEntryNext, next)
			next = uint16(i)
		}
	}
	f.store16(packedFlightOldFree, next)
	f.store16(packedFlightFree, next)
}

func (f *packedFlight) load(c *Chain, head uint16) error {
	c.clear()
	c.flight, c.slots = head, 0
	return f.each(head, func(entry uint16) error {
		at := f.at(entry)
		d := desc{
			addr:  f.load64(at + packedEntryAddr),
			len:   uint32(f.load64(at+packedEntryID) >> 32),
			flags: f.load16(at + packedEntryFlags),
			ref:   f.load16(at + packedEntryID),
		}
		c.id = d.ref
		c.slots++
		return f.ring.collect(c, d)
	})
}

func (f *packedFlight) take(c *Chain) error {
	head := f.load16(packedFlightOldFree)
	c.flight = head
	entry := head
	for i, d := range c.raw {
		if int(entry) >= f.limit {
			return errors.New("inflight memory has too few free entries")
		}
		at := f.at(head)
		if i == 0 {
			f.store16(at+packedEntryNum, 0)
			f.store64(at+packedEntryCounter, f.counter)
			f.counter++
			f.store8(at+packedEntryInflight, 1)
		}
		if i == len(c.raw)-1 {
			f.store16(at+packedEntryLast, entry)
		}
		f.store16(at+packedEntryNum, uint16(i+1))
		at = f.at(entry)
		f.store64(at+packedEntryAddr, d.addr)
		f.store64(at+packedEntryID, uint64(d.ref)|uint64(d.flags)<<16|uint64(d.len)<<32)
		entry = f.load16(at + packedEntryNext)
		f.store16(packedFlightFree, entry)
	}
	f.store16(packedFlightOldFree, entry)
	return nil
}

// untake puts the entries back in one step.
func (f *packedFlight) untake(c *Chain) {
	f.release(c.flight)
	f.store16(packedFlightOldFree, c.flight)
	f.store8(f.at(c.flight)+packedEntryInflight, 0)
}

// release puts a chain's entries at the head of the free list.
func (f *packedFlight) release(head uint16) {
	last := f.load16(f.at(head) + packedEntryLast)
	if int(last) < f.limit { // the frontend may write here, too
		f.store16(f.at(last)+packedEntryNext, f.load16(packedFlightFree))
	}
	f.store16(packedFlightFree, head)
}

func (f *packedFlight) complete(c *Chain) {
	f.release(c.flight)
	f.batch = append(f.batch, c.flight)
	f.slots += c.slots
	f.storePosition(packedFlightUsed, packedFlightWrap, f.ring.ahead(f.ring.used, f.slots))
}

func (f *packedFlight) settle() {
	for _, head := range f.batch {
		f.store8(f.at(head)+packedEntryInflight, 0)
	}
	f.batch, f.slots = f.batch[:0], 0
	f.note()
}

// note makes what was completed the state that counts.
func (f *packedFlight) note() {
	f.store16(packedFlightOldFree, f.load16(packedFlightFree))
	f.storePosition(packedFlightOldUsed, packedFlightOldWrap,
		f.position(packedFlightUsed, packedFlightWrap))
}
