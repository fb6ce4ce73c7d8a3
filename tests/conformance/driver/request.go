// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"cmp"
	"math"
	"slices"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// request is one REPORT_FREE and what the driver has answered.
type request struct {
	generation uint64
	drop       drop
	breaches   int    // of the ledger, before it was sent
	pinned     []span // event buffers that the device had all the time: they are not free
	lost       bool   // a message may come twice or not at all: it is no longer judged

	started   bool
	messages  int
	pageShift uint8
	records   uint64
	resumedAt int // number of the first message with RESUMED, from 1; 0: none
	blocks    []block
	ended     bool // LAST came
	status    protocol.Status
	trailer   protocol.Trailer
}

// span is a range of guest addresses. end is exclusive.
type span struct{ begin, end uint64 }

// block is a reported block: where it lies, and where it was reported.
type block struct {
	span
	message int // from 1
	record  uint64
}

// maxBlocks is how many blocks of a request are searched for overlaps. The search
// takes half a GiB of memory at most. Further blocks are judged one by one only.
const maxBlocks = 1 << 24

// spans returns the guest addresses of segments.
func spans(segments []vhostuser.Segment) []span {
	var list []span
	for _, s := range segments {
		list = append(list, span{s.Addr, s.Addr + uint64(len(s.Bytes))})
	}
	return list
}

// add judges a record.
func (r *request) add(record protocol.Record, memory []vhostuser.Region, maxOrder uint8) error {
	r.records++
	number := r.records - 1
	switch {
	case record.Class() != protocol.ClassFree:
		return breaks(ruleBlock, "record %d of the request has class %d: %v",
			number, record.Class(), record)
	case record.PFN()&(1<<record.Order()-1) != 0:
		return breaks(ruleBlock, "record %d of the request is not aligned to its size: %v",
			number, record)
	}
	s, ok := r.place(record)
	if !ok || !inside(s, memory) {
		return breaks(ruleBlock, "record %d of the request is not wholly in guest memory:"+
			" %v, bytes %#x to %#x", number, record, s.begin, s.end)
	}
	if record.Order() > maxOrder {
		return breaks(ruleMaxOrder, "record %d of the request has order %d,"+
			" HELLO says at most %d: %v", number, record.Order(), maxOrder, record)
	}
	for _, p := range r.pinned {
		if s.begin < p.end && p.begin < s.end {
			return breaks(ruleFree, "record %d of the request, %v, bytes %#x to %#x,"+
				" holds the event buffer at %#x, which the device has had since before the request",
				number, record, s.begin, s.end, p.begin)
		}
	}
	if len(r.blocks) < maxBlocks {
		r.blocks = append(r.blocks, block{s, r.messages, number})
	}
	return nil
}

// place returns the addresses of a record's block, or false if they exceed 64 bits.
func (r *request) place(record protocol.Record) (span, bool) {
	shift := uint(r.pageShift) + uint(record.Order())
	if shift >= 64 || record.PFN() > math.MaxUint64>>r.pageShift {
		return span{}, false
	}
	at := record.PFN() << r.pageShift
	return span{at, at + 1<<shift}, true
}

// inside says whether all of s is guest memory. memory is sorted by address; regions
// may be adjacent.
func inside(s span, memory []vhostuser.Region) bool {
	for _, m := range memory {
		if s.begin >= m.Addr && s.begin-m.Addr < m.Size {
			end := m.Addr + m.Size
			if s.end <= end && s.end > s.begin {
				return true
			}
			s.begin = end
		}
	}
	return false
}

// overlap returns a breach if two blocks overlap that both came before RESUMED.
func (r *request) overlap() error {
	blocks := slices.Clone(r.blocks)
	slices.SortFunc(blocks, func(a, b block) int { return cmp.Compare(a.begin, b.begin) })
	// far is the block with the highest end of those so far that came before RESUMED.
	// Blocks are sorted by their begin: one that overlaps any of those overlaps far.
	var far *block
	for i := range blocks {
		b := &blocks[i]
		if r.resumedAt != 0 && b.message >= r.resumedAt {
			continue
		}
		if far != nil && b.begin < far.end {
			return breaks(ruleOverlap, "record %d of the request, bytes %#x to %#x,"+
				" overlaps record %d, bytes %#x to %#x, and no message so far had RESUMED",
				max(b.record, far.record), b.begin, b.end, min(b.record, far.record), far.begin, far.end)
		}
		if far == nil || b.end > far.end {
			far = b
		}
	}
	return nil
}
