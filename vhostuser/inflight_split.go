// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"cmp"
	"fmt"
	"slices"
)

// QueueRegionSplit and DescStateSplit of vhost-user.rst.
const (
	splitFlightBatch  = 12 // le16 last_batch_head
	splitFlightUsed   = 14 // le16 used_idx
	splitFlightHeader = 16

	splitFlightEntry   = 16
	splitEntryInflight = 0 // u8
	splitEntryNext     = 6 // le16
	splitEntryCounter  = 8 // le64
)

// splitFlight tracks a split ring. An entry is named by the chain's head.
type splitFlight struct {
	area
	ring    *splitRing
	limit   int
	counter uint64
	batch   []uint16 // completed and not settled
}

func (f *splitFlight) at(head uint16) int { return splitFlightHeader + int(head)*splitFlightEntry }

func (f *splitFlight) recover() ([]uint16, error) {
	used := f.ring.usedIdx
	if !f.initialised() {
		f.initialise(f.limit, func() { f.store16(splitFlightUsed, used) })
		return nil, nil
	}
	if err := f.check(f.limit); err != nil {
		return nil, err
	}
	if err := f.finishBatch(used); err != nil {
		return nil, err
	}
	var heads []uint16
	for i := range f.ring.size {
		if f.b[f.at(uint16(i))+splitEntryInflight] == 1 {
			heads = append(heads, uint16(i))
		}
	}
	slices.SortFunc(heads, func(a, b uint16) int {
		return cmp.Compare(f.load64(f.at(a)+splitEntryCounter), f.load64(f.at(b)+splitEntryCounter))
	})
	if n := len(heads); n > 0 {
		f.counter = f.load64(f.at(heads[n-1])+splitEntryCounter) + 1
	}
	// Every chain takes one position of either ring.
	f.ring.next = used + uint16(len(heads))
	f.ring.seen, f.ring.taken = f.ring.next, len(heads)
	return heads, nil
}

// finishBatch takes chains out of flight that a backend has published, if it died before it
// could record that.
func (f *splitFlight) finishBatch(used uint16) error {
	n := used - f.load16(splitFlightUsed)
	if n == 0 {
		return nil
	}
	if int(n) > f.ring.size {
		return fmt.Errorf("inflight memory has used index %d, the ring %d", f.load16(splitFlightUsed),
			used)
	}
	for head := f.load16(splitFlightBatch); n > 0; n-- {
		if int(head) >= f.ring.size {
			return fmt.Errorf("inflight memory has head %d in a ring of %d", head, f.ring.size)
		}
		f.store8(f.at(head)+splitEntryInflight, 0)
		head = f.load16(f.at(head) + splitEntryNext)
	}
	f.store16(splitFlightUsed, used)
	return nil
}

func (f *splitFlight) load(c *Chain, head uint16) error { return f.ring.collect(c, head) }

func (f *splitFlight) take(c *Chain) error {
	f.store64(f.at(c.id)+splitEntryCounter, f.counter)
	f.counter++
	f.store8(f.at(c.id)+splitEntryInflight, 1)
	return nil
}

func (f *splitFlight) untake(c *Chain) { f.store8(f.at(c.id)+splitEntryInflight, 0) }

func (f *splitFlight) complete(c *Chain) {
	f.store16(f.at(c.id)+splitEntryNext, f.load16(splitFlightBatch))
	f.store16(splitFlightBatch, c.id)
	f.batch = append(f.batch, c.id)
}

func (f *splitFlight) settle() {
	for _, head := range f.batch {
		f.store8(f.at(head)+splitEntryInflight, 0)
	}
	f.batch = f.batch[:0]
	f.store16(splitFlightUsed, f.ring.usedIdx)
}
