// SPDX-License-Identifier: Apache-2.0

// Package freeset collects which pages of a guest's memory are free and gives
// them out as sorted, disjoint, maximal ranges.
//
// A [Set] is a bitmap with one bit for each 4 KiB frame. So it merges blocks of
// any size in any order, and finds every overlap. Its own size is bounded: 1/32768
// of the guest's memory, and 32 KiB for each contiguous piece of it. It allocates
// the bitmap when blocks come, in chunks for 1 GiB of guest memory. An [Adder] adds
// many small blocks that come in no order. A Set is not safe for concurrent use.
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

// ErrOverlap says that a block overlaps an earlier one.
var ErrOverlap = errors.New("block overlaps an earlier one")

// Range is a run of guest-physical memory in bytes.
type Range struct {
	GPA    uint64 `json:"gpa"`
	Length uint64 `json:"length"`
}

// End returns the address after the range's last byte.
func (r Range) End() uint64 { return r.GPA + r.Length }

// String implements fmt.Stringer.
func (r Range) String() string { return fmt.Sprintf("[%#x, %#x)", r.GPA, r.End()) }

// Block is a run of frames: First is the number of the first one.
type Block struct {
	First, Count uint64
}

// A chunk is the bitmap of 1 GiB.
const (
	chunkShift = 18 // log2 of its frames
	chunkWords = 1 << chunkShift / 64
)

type chunk [chunkWords]uint64

// area is a contiguous piece of guest memory.
type area struct {
	first, count uint64   // frames
	chunks       []*chunk // nil where nothing was ever free
}

// Set is a set of frames of guest memory, such as the free ones. Create it with New.
type Set struct {
	areas []area // by address
	free  uint64 // number of frames in the set
	last  int    // area of the block added last: blocks come in clusters
}

// New returns an empty set over the given guest memory.
func New(memory []Range) *Set {
	s := &Set{}
	s.SetMemory(memory)
	return s
}

// SetMemory empties the set and replaces the guest memory that it covers. Adjacent
// pieces are merged, since a block may lie across them. Incomplete frames are left
// out. The cost is proportional to the number of pieces, plus a word for each GiB.
func (s *Set) SetMemory(memory []Range) {
	*s = Set{}
	for _, r := range Merge(memory) {
		first, end := r.GPA>>FrameShift, r.End()>>FrameShift
		if r.GPA&(1<<FrameShift-1) != 0 {
			first++ // rounding up the address could wrap
		}
		if first >= end {
			continue
		}
		count := end - first
		s.areas = append(s.areas, area{
			first: first, count: count,
			chunks: make([]*chunk, (count+1<<chunkShift-1)>>chunkShift),
		})
	}
}

// Memory returns the guest memory that the set covers: sorted, disjoint, and of whole frames.
func (s *Set) Memory() (memory []Range) {
	for i := range s.areas {
		a := &s.areas[i]
		memory = append(memory, Range{GPA: a.first << FrameShift, Length: a.count << FrameShift})
	}
	return memory
}

// Merge returns the memory of ranges in any order, as the fewest ranges, sorted by address.
func Merge(ranges []Range) []Range {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.GPA, b.GPA) })
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

// Reset empties the set. It does not free the memory of the bitmap.
func (s *Set) Reset() {
	for i := range s.areas {
		for _, c := range s.areas[i].chunks {
			if c != nil {
				clear(c[:])
			}
		}
	}
	s.free = 0
}

// Copy makes the set hold the frames of o. Both sets cover the same memory, or else the set is
// empty afterwards.
func (s *Set) Copy(o *Set) {
	s.Reset()
	s.Unite(o)
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

// Add adds blocks in order. Frames that are not in guest memory are left out;
// outside is their number. Without overlapOK, Add stops with ErrOverlap at the
// first block that has a frame in the set already; done is the number of blocks
// added before it. Nothing may change blocks during the call: pass no guest memory.
func (s *Set) Add(blocks []Block, overlapOK bool) (done int, outside uint64, err error) {
	for done < len(blocks) {
		// A fragmented guest has millions of small blocks.
		if done += s.addSmall(blocks[done:]); done == len(blocks) {
			break
		}
		n, err := s.addBlock(blocks[done], overlapOK)
		if err != nil {
			return done, outside, err
		}
		outside += n
		done++
	}
	return done, outside, nil
}

// maxSmall is the largest block, in frames, of which two fit into one word of the
// bitmap.
const maxSmall = 32

// addSmall adds blocks up to the first that is not small, does not lie in one word
// of the area used last, or overlaps. It returns how many it added.
func (s *Set) addSmall(blocks []Block) int {
	if s.last >= len(s.areas) {
		return 0
	}
	a := &s.areas[s.last]
	first, count, chunks, frames := a.first, a.count, a.chunks, uint64(0)
	done := 0
	for _, b := range blocks {
		from := b.First - first // wraps to a large number below first
		if from >= count || b.Count-1 >= maxSmall || b.Count > count-from || from&63+b.Count > 64 {
			break
		}
		c := chunks[from>>chunkShift]
		if c == nil {
			break
		}
		mask := (uint64(1)<<b.Count - 1) << (from & 63)
		word := &c[from>>6%chunkWords]
		if *word&mask != 0 {
			break
		}
		*word |= mask
		frames += b.Count
		done++
	}
	s.free += frames
	return done
}

// addBlock adds the frames of b that are in memory, and returns how many are not.
func (s *Set) addBlock(b Block, overlapOK bool) (outside uint64, err error) {
	if b.First+b.Count < b.First {
		return b.Count, nil // beyond any memory
	}
	if !overlapOK {
		for c, part := range s.parts(b) {
			if *c != nil && (*c).overlaps(part) {
				return 0, ErrOverlap
			}
		}
	}
	outside = b.Count
	for c, part := range s.parts(b) {
		if *c == nil {
			*c = new(chunk)
		}
		s.free += (*c).fill(part)
		outside -= part.Count
	}
	return outside, nil
}

// parts yields each chunk that b lies in with b's part of it. The part is counted
// from the beginning of the chunk. The chunk may be nil.
func (s *Set) parts(b Block) iter.Seq2[**chunk, Block] {
	return func(yield func(**chunk, Block) bool) {
		i := s.last
		if i >= len(s.areas) || b.First-s.areas[i].first >= s.areas[i].count {
			i, _ = slices.BinarySearchFunc(s.areas, b.First, func(a area, first uint64) int {
				return cmp.Compare(a.first+a.count-1, first)
			})
		}
		end := b.First + b.Count
		for ; i < len(s.areas) && s.areas[i].first < end; i++ {
			s.last = i
			a := &s.areas[i]
			from, to := max(b.First, a.first)-a.first, min(end-a.first, a.count)
			for from < to {
				n := min(to-from, 1<<chunkShift-from%(1<<chunkShift))
				if !yield(&a.chunks[from>>chunkShift], Block{from % (1 << chunkShift), n}) {
					return
				}
				from += n
			}
		}
	}
}

// span returns the words that have b's bits. before masks the bits of the first
// word that are not b's, after those of the last word.
func (c *chunk) span(b Block) (words []uint64, before, after uint64) {
	last := b.First + b.Count - 1
	return c[b.First/64 : last/64+1], 1<<(b.First%64) - 1, ^uint64(0) << (last % 64) << 1
}

func (c *chunk) overlaps(b Block) bool {
	words, before, after := c.span(b)
	last := len(words) - 1
	if last == 0 {
		return words[0]&^before&^after != 0
	}
	for _, w := range words[1:last] {
		if w != 0 {
			return true
		}
	}
	return words[0]&^before != 0 || words[last]&^after != 0
}

// fill adds frames, and returns how many of them are new.
func (c *chunk) fill(b Block) uint64 {
	words, before, after := c.span(b)
	last, had := len(words)-1, 0
	for i, w := range words {
		mask := ^uint64(0)
		if i == 0 {
			mask &^= before
		}
		if i == last {
			mask &^= after
		}
		had += bits.OnesCount64(w & mask)
		words[i] = w | mask
	}
	return b.Count - uint64(had)
}
