// SPDX-License-Identifier: Apache-2.0

package freeset

import "math/bits"

// Subtract removes the frames of o. Both sets cover the same memory, or else
// Subtract removes all frames, since it cannot tell which of them are in o.
func (s *Set) Subtract(o *Set) {
	if !s.sameMemory(o) {
		s.Reset()
		return
	}
	for i := range s.areas {
		for n, c := range s.areas[i].chunks {
			other := o.areas[i].chunks[n]
			if c == nil || other == nil {
				continue
			}
			for w, word := range other {
				s.free -= uint64(bits.OnesCount64(c[w] & word))
				c[w] &^= word
			}
		}
	}
}

// Unite adds the frames of o. Both sets cover the same memory, or else the set stays as it is.
func (s *Set) Unite(o *Set) {
	if !s.sameMemory(o) {
		return
	}
	for i := range s.areas {
		for n, other := range o.areas[i].chunks {
			if other == nil {
				continue
			}
			c := s.areas[i].chunks[n]
			if c == nil {
				c = new(chunk)
				s.areas[i].chunks[n] = c
			}
			for w, word := range other {
				s.free += uint64(bits.OnesCount64(word &^ c[w]))
				c[w] |= word
			}
		}
	}
}

func (s *Set) sameMemory(o *Set) bool {
	if len(s.areas) != len(o.areas) {
		return false
	}
	for i := range s.areas {
		if s.areas[i].first != o.areas[i].first || s.areas[i].count != o.areas[i].count {
			return false
		}
	}
	return true
}

// CloseHoles adds the frames between two of the set where there are at most max of
// them, so that there are fewer ranges.
func (s *Set) CloseHoles(max uint64) {
	for i := range s.areas {
		a := &s.areas[i]
		end := uint64(0)
		for from, count := range a.runs() {
			// This changes only words that runs is done with.
			if hole := from - end; end > 0 && hole <= max {
				_, _ = s.addBlock(Block{a.first + end, hole}, true) // no overlap, no error
			}
			end = from + count
		}
	}
}
