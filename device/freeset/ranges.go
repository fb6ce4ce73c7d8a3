// SPDX-License-Identifier: Apache-2.0

package freeset

import (
	"iter"
	"math/bits"
)

// Ranges returns the free ranges of at least minFrames frames: sorted by
// address, disjoint, and not adjacent. The set must not change meanwhile.
func (s *Set) Ranges(minFrames uint64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		for i := range s.areas {
			first := s.areas[i].first
			for from, count := range s.areas[i].runs() {
				if count < minFrames {
					continue
				}
				if !yield(Range{(first + from) << FrameShift, count << FrameShift}) {
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
		for i, c := range a.chunks {
			base := uint64(i) << chunkShift
			if c == nil {
				if open && !yield(start, base-start) {
					return
				}
				open = false
				continue
			}
			for w, word := range c {
				if word == 0 && !open || word == ^uint64(0) && open {
					continue // the common cases: nothing begins or ends here
				}
				for bit := 0; bit < 64; {
					rest := word >> bit
					if open {
						rest = ^rest
					}
					// The bits that the shift fills in are not found below bit 64. So a
					// run that reaches the end of the word stays open into the next.
					n := bits.TrailingZeros64(rest)
					if bit+n >= 64 {
						break
					}
					bit += n
					at := base + uint64(w)*64 + uint64(bit)
					if open && !yield(start, at-start) {
						return
					}
					start, open = at, !open
				}
			}
		}
		if open {
			yield(start, uint64(len(a.chunks))<<chunkShift-start)
		}
	}
}
