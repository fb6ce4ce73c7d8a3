// SPDX-License-Identifier: Apache-2.0

package freeset

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const frame = 1 << FrameShift

// add adds one block.
func add(s *Set, first, count uint64, overlapOK bool) error {
	_, _, err := s.Add([]Block{{first, count}}, overlapOK)
	return err
}

func collect(s *Set, minFrames uint64) []Range { return slices.Collect(s.Ranges(minFrames)) }

func TestBlocksCoalesce(t *testing.T) {
	memory := []Range{{0, 640 << 10}, {1 << 20, 2 << 30}, {4 << 30, 1 << 30}}
	for _, tc := range []struct {
		name string
		in   []Block
		want []Range
	}{
		{"no block gives no range", nil, nil},
		{"one page", []Block{{5, 1}}, []Range{{5 * frame, frame}}},
		{
			"neighbours in descending order become one range",
			[]Block{{1024 + 8, 8}, {1024 + 4, 4}, {1024, 4}},
			[]Range{{1024 * frame, 16 * frame}},
		},
		{
			"a hole of one page splits",
			[]Block{{1024, 1}, {1026, 2}},
			[]Range{{1024 * frame, frame}, {1026 * frame, 2 * frame}},
		},
		{
			"a block of a GiB fills words",
			[]Block{{1 << 20, 1 << 18}},
			[]Range{{4 << 30, 1 << 30}},
		},
		{
			"areas do not merge across a hole",
			[]Block{{128, 32}, {256, 1}},
			[]Range{{128 * frame, 32 * frame}, {256 * frame, frame}},
		},
		{
			"a block across two chunks is one range",
			[]Block{{256 + 1<<18 - 8, 16}},
			[]Range{{(256 + 1<<18 - 8) * frame, 16 * frame}},
		},
		{
			"a chunk that ends free, before one where nothing is",
			[]Block{{256 + 1<<18 - 64, 64}},
			[]Range{{(256 + 1<<18 - 64) * frame, 64 * frame}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := New(memory)
			if _, outside, err := s.Add(tc.in, false); err != nil || outside != 0 {
				t.Fatal(outside, err)
			}
			if diff := cmp.Diff(tc.want, collect(s, 1)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestFramesOutsideOfMemoryAreLeftOut(t *testing.T) {
	for _, tc := range []struct {
		name    string
		in      Block
		outside uint64
		want    []Range
	}{
		{"past the end of memory", Block{512, 512}, 512, nil},
		{"half past the end", Block{510, 4}, 2, []Range{{510 * frame, 2 * frame}}},
		{"in the hole below the second area", Block{160, 1}, 1, nil},
		{"from memory into the hole", Block{128, 64}, 32, []Range{{128 * frame, 32 * frame}}},
		{"across the hole", Block{150, 110}, 96,
			[]Range{{150 * frame, 10 * frame}, {256 * frame, 4 * frame}}},
		{"at an address beyond 64 bits", Block{1<<64 - 1, 2}, 2, nil},
		{"all there is, and more", Block{0, 1 << 40}, 1<<40 - 416,
			[]Range{{0, 160 * frame}, {256 * frame, 256 * frame}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := New([]Range{{0, 160 * frame}, {256 * frame, 256 * frame}})
			done, outside, err := s.Add([]Block{tc.in}, false)
			if err != nil || done != 1 || outside != tc.outside {
				t.Errorf("%d blocks, %d frames outside, %v; want 1, %d", done, outside, err, tc.outside)
			}
			if diff := cmp.Diff(tc.want, collect(s, 1)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBlocksThatOverlapAreRefused(t *testing.T) {
	for name, in := range map[string]Block{
		"twice":                            {300, 1},
		"over an earlier, smaller one":     {296, 8},
		"an earlier one in the other area": {150, 200},
	} {
		t.Run(name, func(t *testing.T) {
			s := New([]Range{{0, 160 * frame}, {256 * frame, 256 * frame}})
			done, _, err := s.Add([]Block{{300, 1}, in}, false)
			if done != 1 || !errors.Is(err, ErrOverlap) {
				t.Fatalf("%d blocks, %v; want 1, ErrOverlap", done, err)
			}
			if want := []Range{{300 * frame, frame}}; !slices.Equal(collect(s, 1), want) {
				t.Fatalf("ranges are %v after the refusal, want %v", collect(s, 1), want)
			}
		})
	}
}

func TestOverlapIsMergedWhereItIsAllowed(t *testing.T) {
	s := New([]Range{{0, 1 << 20}})
	if _, _, err := s.Add([]Block{{3, 1}, {0, 8}, {4, 4}}, true); err != nil {
		t.Fatal(err)
	}
	got, want := collect(s, 1), []Range{{0, 8 * frame}}
	if !slices.Equal(got, want) || s.Frames() != 8 {
		t.Fatalf("got %v, %d frames; want %v, 8", got, s.Frames(), want)
	}
}

func TestAdjacentMemoryIsOneArea(t *testing.T) {
	s := New([]Range{{1 << 20, 1 << 20}, {0, 1 << 20}, {5 << 20, 0}, {^uint64(0) - 5, 100}})
	if s.Capacity() != 512 {
		t.Fatalf("capacity %d frames, want 512", s.Capacity())
	}
	if err := add(s, 0, 512, false); err != nil {
		t.Fatalf("block across the seam: %v", err)
	}
}

// The regions come from the frontend, which may send any numbers.
func TestMemoryWithoutWholeFramesIsLeftOut(t *testing.T) {
	const top = 1<<64 - 1
	for name, memory := range map[string]Range{
		"nothing":                         {frame, 0},
		"less than a frame":               {frame + 1, frame},
		"a part of the last frame":        {top - 4000, 3000},
		"up to the end of the addresses":  {top - frame + 1, frame},
		"past the end of the addresses":   {top - frame + 1, 2 * frame},
		"from the last frame but one on":  {top - frame, frame},
		"all addresses but the first one": {1, top},
	} {
		if n := New([]Range{memory}).Capacity(); n != 0 {
			t.Errorf("%s: %v has %d frames, want none", name, memory, n)
		}
	}
}

func TestResetEmptiesTheSet(t *testing.T) {
	s := New([]Range{{0, 1 << 30}})
	for range 3 {
		if err := add(s, 7, 200, false); err != nil {
			t.Fatal(err)
		}
		s.Reset()
		if s.Frames() != 0 || len(collect(s, 1)) != 0 {
			t.Fatalf("%d frames and %v after Reset", s.Frames(), collect(s, 1))
		}
	}
}

func TestSmallRangesCanBeLeftOut(t *testing.T) {
	s := New([]Range{{0, 1 << 20}})
	for _, b := range [][2]uint64{{0, 1}, {10, 2}, {20, 3}} {
		if err := add(s, b[0], b[1], false); err != nil {
			t.Fatal(err)
		}
	}
	want := []Range{{10 * frame, 2 * frame}, {20 * frame, 3 * frame}}
	if got := collect(s, 2); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// TestAgainstNaiveModel compares with a map of frames on random input, of blocks
// that are small more often than not.
func TestAgainstNaiveModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		memory := []Range{{0, 100 * frame}, {130 * frame, 333 * frame}}
		s, model := New(memory), map[uint64]bool{}
		isMemory := func(f uint64) bool { return f < 100 || f >= 130 && f < 463 }
		for range rng.IntN(30) {
			blocks := make([]Block, rng.IntN(6))
			for i := range blocks {
				blocks[i] = Block{rng.Uint64N(480), 1 + rng.Uint64N(1<<rng.IntN(7))}
			}
			allow := rng.IntN(2) == 0
			done, outside, err := s.Add(blocks, allow)
			want := uint64(0)
			for i, b := range blocks {
				overlap := false
				for f := b.First; f < b.First+b.Count; f++ {
					overlap = overlap || model[f]
				}
				if overlap && !allow {
					if done != i || !errors.Is(err, ErrOverlap) {
						t.Fatalf("add %v: %d blocks, %v, want ErrOverlap at %d", blocks, done, err, i)
					}
					break
				}
				if done <= i {
					t.Fatalf("add %v: %d blocks, %v, want more", blocks, done, err)
				}
				for f := b.First; f < b.First+b.Count; f++ {
					if isMemory(f) {
						model[f] = true
					} else {
						want++
					}
				}
			}
			if outside != want {
				t.Fatalf("add %v: %d frames outside, want %d", blocks, outside, want)
			}
		}
		checkModel(t, s, model)
		s.Reset()
		checkModel(t, s, nil)
	}
}

func checkModel(t *testing.T, s *Set, model map[uint64]bool) {
	t.Helper()
	var got, prevEnd uint64
	for r := range s.Ranges(1) {
		if got > 0 && r.GPA <= prevEnd {
			t.Fatalf("range %v is not after and apart from the one that ends at %#x", r, prevEnd)
		}
		prevEnd = r.End()
		for f := r.GPA / frame; f < r.End()/frame; f++ {
			if !model[f] {
				t.Fatalf("frame %d is in %v but was never added", f, r)
			}
			got++
		}
	}
	if got != uint64(len(model)) || s.Frames() != got {
		t.Fatalf("%d frames in ranges, %d counted, %d added", got, s.Frames(), len(model))
	}
}

func TestAMemoryTableOfManyModulesIsCheap(t *testing.T) {
	var memory []Range
	s := New(nil)
	taken := testing.AllocsPerRun(1, func() {
		memory = memory[:0]
		for i := range uint64(256) { // 2 TiB, a module at a time
			memory = append(memory, Range{i << 33, 1 << 33})
			s.SetMemory(memory)
		}
	})
	if s.Capacity() != 1<<29 {
		t.Fatalf("%d frames, want 2 TiB", s.Capacity())
	}
	if taken > 256*20 {
		t.Errorf("%v allocations for 256 changes", taken)
	}
	chunks := 0
	for _, a := range s.areas {
		for _, c := range a.chunks {
			if c != nil {
				chunks++
			}
		}
	}
	if chunks != 0 {
		t.Errorf("an empty set has %d chunks", chunks)
	}
}

func FuzzAdd(f *testing.F) {
	f.Add(uint64(0), uint64(1), uint64(1024), uint64(1024), true)
	f.Add(uint64(1<<64-1), uint64(63), uint64(5), uint64(1<<63), false)
	f.Fuzz(func(t *testing.T, first, count, first2, count2 uint64, overlapOK bool) {
		s := New([]Range{{0, 1 << 20}, {1 << 30, 5<<20 + 4096}})
		_, _, _ = s.Add([]Block{{first, count}, {first2, count2}}, overlapOK)
		var n uint64
		for r := range s.Ranges(1) {
			n += r.Length / frame
		}
		if n != s.Frames() || n > s.Capacity() {
			t.Fatalf("%d frames in ranges, %d counted, capacity %d", n, s.Frames(), s.Capacity())
		}
	})
}

// A copy has what the other set has, and nothing that was there before. Where the memory is
// another, it is empty.
func TestCopy(t *testing.T) {
	memory := []Range{{GPA: 0, Length: 1 << 30}, {GPA: 4 << 30, Length: 1 << 30}}
	from, to := New(memory), New(memory)
	for set, blocks := range map[*Set][]Block{
		from: {{First: 5, Count: 3}, {First: 4<<18 + 70_000, Count: 900}},
		to:   {{First: 4, Count: 2}, {First: 200_000, Count: 1}},
	} {
		if _, _, err := set.Add(blocks, false); err != nil {
			t.Fatal(err)
		}
	}
	to.Copy(from)
	want := slices.Collect(from.Ranges(1))
	if got := slices.Collect(to.Ranges(1)); !slices.Equal(got, want) || to.Frames() != 903 {
		t.Errorf("got %v with %d frames, want %v", got, to.Frames(), want)
	}
	_, _, err := to.Add([]Block{{First: 0, Count: 1}}, false)
	if err != nil || from.Frames() != 903 {
		t.Errorf("the copy is not its own: %v, %d frames", err, from.Frames())
	}
	if to.Copy(New(memory[:1])); to.Frames() != 0 {
		t.Errorf("%d frames of other memory", to.Frames())
	}
}
