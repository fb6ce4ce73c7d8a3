// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/introspect"
)

// maxClaims bounds the claims that wait for a proof, at 16 bytes each. More claims
// are proven in several rounds. In each round QEMU reads the dirty log again.
const maxClaims = 1 << 20

// sieve adds those blocks to free whose evidence was not written since the request.
type sieve struct {
	free    *freeset.Set
	written func(ctx context.Context, pages []freeset.Range) ([]byte, error)
	claims  []claim
	lists   [][]introspect.Block // free pages of CPUs, in the order of their lists
	max     int

	kept, dropped, peeks uint64 // blocks, and questions to the frontend
	peeking, sieving     time.Duration
}

// claim says that a block is free if a frame was not written. A block with two
// frames of evidence makes two claims in a row.
type claim struct {
	block uint64 // frame number << orderBits | order
	frame uint64
}

const orderBits = 8

func newSieve(
	free *freeset.Set, written func(context.Context, []freeset.Range) ([]byte, error), max int,
) *sieve {
	return &sieve{free: free, written: written, max: max}
}

// add takes blocks that were marked as free when they were read.
func (s *sieve) add(ctx context.Context, blocks []introspect.Block) error {
	for _, b := range blocks {
		if len(s.claims)+2 > s.max {
			if err := s.prove(ctx); err != nil {
				return err
			}
		}
		block := b.PFN<<orderBits | uint64(b.Order)
		s.claims = append(s.claims, claim{block, b.Evidence[0]})
		if b.Evidence[1] != b.Evidence[0] {
			s.claims = append(s.claims, claim{block, b.Evidence[1]})
		}
	}
	return nil
}

// addList takes the blocks of a CPU's list. There are few, so they are not counted as claims.
func (s *sieve) addList(list []introspect.Block) error {
	s.lists = append(s.lists, list)
	return nil
}

// prove asks the frontend which frames of evidence were written, and settles all
// claims. Call it after the last add.
func (s *sieve) prove(ctx context.Context) error {
	begun := time.Now()
	var wanted []uint64 // neighbours often share a frame
	for _, c := range s.claims {
		if n := len(wanted); n == 0 || wanted[n-1] != c.frame {
			wanted = append(wanted, c.frame)
		}
	}
	for _, list := range s.lists {
		for _, b := range list {
			wanted = append(wanted, b.Evidence[:]...)
		}
	}
	pages := asRanges(wanted)
	if len(pages) == 0 {
		return nil
	}
	asked := time.Now()
	s.sieving += asked.Sub(begun)
	bits, err := s.written(ctx, pages)
	if err != nil {
		return fmt.Errorf("ask what was written: %w", err)
	}
	s.peeks++
	begun = time.Now()
	s.peeking += begun.Sub(asked)
	defer func() { s.sieving += time.Since(begun) }()

	answer, err := newAnswer(pages, bits)
	if err != nil {
		return err
	}
	return s.keep(answer)
}

// keep adds the blocks whose evidence was not written to the set.
func (s *sieve) keep(a *answer) error {
	batch := make([]freeset.Block, 0, 1024)
	flush := func() error {
		_, _, err := s.free.Add(batch, false)
		batch = batch[:0]
		return err
	}
	add := func(pfn uint64, order uint64) error {
		s.kept++
		batch = append(batch, freeset.Block{First: pfn, Count: 1 << order})
		if len(batch) == cap(batch) {
			return flush()
		}
		return nil
	}
	for i := 0; i < len(s.claims); {
		block, holds := s.claims[i].block, true
		for ; i < len(s.claims) && s.claims[i].block == block; i++ {
			holds = holds && !a.written(s.claims[i].frame)
		}
		if !holds {
			s.dropped++
			continue
		}
		if err := add(block>>orderBits, block&(1<<orderBits-1)); err != nil {
			return fmt.Errorf("note free blocks: %w", err)
		}
	}
	for _, list := range s.lists {
		kept := unbroken(list, a)
		s.dropped += uint64(len(list) - len(kept))
		for _, b := range kept {
			if err := add(b.PFN, uint64(b.Order)); err != nil {
				return fmt.Errorf("note free blocks of CPUs: %w", err)
			}
		}
	}
	s.claims, s.lists = s.claims[:0], nil
	if err := flush(); err != nil {
		return fmt.Errorf("note free blocks: %w", err)
	}
	return nil
}

// unbroken returns the blocks of a list that hang together with one of its ends by struct pages
// that were not written. See [introspect.ScanOptions.CPULists].
func unbroken(list []introspect.Block, a *answer) []introspect.Block {
	written := func(b introspect.Block) bool {
		return a.written(b.Evidence[0]) || a.written(b.Evidence[1])
	}
	first := slices.IndexFunc(list, written)
	if first < 0 {
		return list
	}
	last := len(list)
	for !written(list[last-1]) {
		last--
	}
	return append(list[:first:first], list[last:]...)
}

// asRanges sorts frames and returns them as ranges. It changes its argument.
func asRanges(frames []uint64) []freeset.Range {
	const size = 1 << freeset.FrameShift
	slices.Sort(frames)
	var ranges []freeset.Range
	for _, n := range slices.Compact(frames) {
		gpa := n << freeset.FrameShift
		if last := len(ranges) - 1; last >= 0 && ranges[last].End() == gpa {
			ranges[last].Length += size
			continue
		}
		ranges = append(ranges, freeset.Range{GPA: gpa, Length: size})
	}
	return ranges
}

// answer says which frames of some ranges were written.
type answer struct {
	pages  []freeset.Range
	before []uint64 // for each range, the number of frames in the ranges before it
	bits   []byte
	last   int // index of the range that was used last
}

func newAnswer(pages []freeset.Range, bits []byte) (*answer, error) {
	a := &answer{pages: pages, bits: bits, before: make([]uint64, len(pages))}
	total := uint64(0)
	for i, r := range pages {
		a.before[i] = total
		total += r.Length >> freeset.FrameShift
	}
	if uint64(len(bits)) != (total+7)/8 {
		return nil, fmt.Errorf("the answer to what was written of %d pages has %d bytes",
			total, len(bits))
	}
	return a, nil
}

// written says whether a frame was written. A frame outside of the ranges counts
// as written.
func (a *answer) written(frame uint64) bool {
	gpa := frame << freeset.FrameShift
	if r := a.pages[a.last]; gpa < r.GPA || gpa >= r.End() {
		i, found := slices.BinarySearchFunc(a.pages, gpa, func(r freeset.Range, gpa uint64) int {
			return cmp.Compare(r.GPA, gpa)
		})
		if !found {
			i--
		}
		if i < 0 || gpa >= a.pages[i].End() {
			return true
		}
		a.last = i
	}
	n := a.before[a.last] + (gpa-a.pages[a.last].GPA)>>freeset.FrameShift
	return a.bits[n/8]>>(n%8)&1 != 0
}
