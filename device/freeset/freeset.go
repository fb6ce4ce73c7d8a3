// SPDX-License-Identifier: Apache-2.0

// Package freeset collects which pages of a guest's memory are free and gives
// them out as sorted, disjoint, maximal ranges.
//
// A [Set] is a bitmap with one bit for each 4 KiB frame, so it merges blocks of
// any order that come in any order, sees every overlap, and needs the same
// memory whatever the guest reports: 1/32768 of the guest's. It does not know
// where blocks come from. A Set is not safe for concurrent use.
package freeset

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"slices"
)

// FrameShift is log2 of the frame size that a Set counts in: 4 KiB, the
// smallest page of every guest and QEMU's target page on x86.
const FrameShift = 12

// Errors of the Add methods. The block that caused one was not added; blocks
// added before it stay.
var (
	ErrOutside   = errors.New("block is not wholly in guest memory")
	ErrUnaligned = errors.New("block is not aligned to its size")
	ErrOverlap   = errors.New("block overlaps an earlier one")
	ErrClass     = errors.New("block has a class that is not defined")
)

// Range is a run of guest-physical memory in bytes.
type Range struct {
	GPA    uint64
	Length uint64
}

// End returns the address after the range's last byte.
func (r Range) End() uint64 { return r.GPA + r.Length }

// String implements fmt.Stringer.
func (r Range) String() string { return fmt.Sprintf("[%#x, %#x)", r.GPA, r.End()) }

// area is a contiguous piece of guest memory and its bitmap.
type area struct {
	first uint64 // frame number
	bits  []uint64
	count uint64 // frames
	// Words that may be set, so that an almost empty set is cheap to read and
	// to clear: [low, high).
	low, high int
}

// Set is the set of free frames. Create it with New.
type Set struct {
	areas []area
	free  uint64 // frames in the set
	last  int    // area of the block added last: blocks come in clusters
}

// New returns an empty set over the given guest memory. Pieces that touch are
// merged, since a block may lie across them; incomplete frames are left out.
func New(memory []Range) *Set {
	memory = slices.Clone(memory)
	slices.SortFunc(memory, func(a, b Range) int { return cmp.Compare(a.GPA, b.GPA) })
	s := &Set{}
	for _, r := range merge(memory) {
		first, end := r.GPA>>FrameShift, r.End()>>FrameShift
		if r.GPA&(1<<FrameShift-1) != 0 {
			first++ // rounding up the address could wrap
		}
		if first >= end {
			continue
		}
		count := end - first
		s.areas = append(s.areas, area{first: first, count: count, bits: make([]uint64, (count+63)/64)})
	}
	s.Reset()
	return s
}

func merge(sorted []Range) []Range {
	var out []Range
	for _, r := range sorted {
		if r.Length == 0 || r.End() < r.GPA {
			continue
		}
		if n := len(out); n > 0 && r.GPA <= out[n-1].End() {
			out[n-1].Length = max(out[n-1].End(), r.End()) - out[n-1].GPA
			continue
		}
		out = append(out, r)
	}
	return out
}

// Reset empties the set. Its cost is in proportion to the span that was used.
func (s *Set) Reset() {
	for i := range s.areas {
		a := &s.areas[i]
		if a.low < a.high {
			clear(a.bits[a.low:a.high])
		}
		a.low, a.high = len(a.bits), 0
	}
	s.free = 0
}

// Frames returns the number of frames in the set.
func (s *Set) Frames() uint64 { return s.free }

// Capacity returns the number of frames of guest memory.
func (s *Set) Capacity() uint64 {
	var n uint64
	for i := range s.areas {
		n += s.areas[i].count
	}
	return n
}

// Add adds count frames from first on. Without overlapOK the set must not
// contain any of them yet.
func (s *Set) Add(first, count uint64, overlapOK bool) error {
	a := s.find(first)
	if a == nil {
		return ErrOutside
	}
	from := first - a.first
	if count == 0 || count > a.count-from {
		return ErrOutside
	}
	return s.fill(a, from, count, overlapOK)
}

// find returns the area that frame lies in, or nil.
func (s *Set) find(frame uint64) *area {
	if s.last < len(s.areas) {
		if a := &s.areas[s.last]; frame-a.first < a.count { // wraps to a large number below first
			return a
		}
	}
	for i := range s.areas {
		if a := &s.areas[i]; frame-a.first < a.count {
			s.last = i
			return a
		}
	}
	return nil
}

// fill sets bits [from, from+count) of a, which are in bounds.
func (s *Set) fill(a *area, from, count uint64, overlapOK bool) error {
	firstWord, lastWord := int(from/64), int((from+count-1)/64)
	head := ^uint64(0) << (from % 64)
	tail := ^uint64(0) >> (63 - (from+count-1)%64)

	if firstWord == lastWord { // every block below order 6
		old, mask := a.bits[firstWord], head&tail
		if old&mask != 0 && !overlapOK {
			return ErrOverlap
		}
		a.low, a.high = min(a.low, firstWord), max(a.high, firstWord+1)
		a.bits[firstWord] = old | mask
		s.free += uint64(bits.OnesCount64(mask &^ old))
		return nil
	}
	if !overlapOK && overlaps(a.bits, firstWord, lastWord, head, tail) {
		return ErrOverlap
	}
	a.low, a.high = min(a.low, firstWord), max(a.high, lastWord+1)
	for w := firstWord; w <= lastWord; w++ {
		mask := ^uint64(0)
		if w == firstWord {
			mask &= head
		}
		if w == lastWord {
			mask &= tail
		}
		old := a.bits[w]
		a.bits[w] = old | mask
		s.free += uint64(bits.OnesCount64(mask &^ old))
	}
	return nil
}

func overlaps(words []uint64, first, last int, head, tail uint64) bool {
	for w := first; w <= last; w++ {
		mask := ^uint64(0)
		if w == first {
			mask &= head
		}
		if w == last {
			mask &= tail
		}
		if words[w]&mask != 0 {
			return true
		}
	}
	return false
}

// Ranges returns the free ranges of at least minFrames frames: sorted by
// address, disjoint, and not adjacent. The set must not change meanwhile.
func (s *Set) Ranges(minFrames uint64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		for i := range s.areas {
			for from, count := range s.areas[i].runs() {
				if count < minFrames {
					continue
				}
				r := Range{GPA: (s.areas[i].first + from) << FrameShift, Length: count << FrameShift}
				if !yield(r) {
					return
				}
			}
		}
	}
}

// runs yields the maximal runs of set bits as (first bit, count).
func (a *area) runs() iter.Seq2[uint64, uint64] {
	return func(yield func(uint64, uint64) bool) {
		var start uint64
		open := false
		for w := a.low; w < a.high; w++ {
			word := a.bits[w]
			if word == 0 && !open || word == ^uint64(0) && open {
				continue // the common cases: nothing begins or ends here
			}
			for bit := 0; bit < 64; {
				rest := word >> bit
				if open {
					rest = ^rest
				}
				// What is shifted in from above never ends the search below bit
				// 64, so a run goes on into the next word.
				n := bits.TrailingZeros64(rest)
				if bit+n >= 64 {
					break
				}
				bit += n
				at := uint64(w)*64 + uint64(bit)
				if open && !yield(start, at-start) {
					return
				}
				start, open = at, !open
			}
		}
		if open {
			yield(start, uint64(a.high)*64-start)
		}
	}
}
