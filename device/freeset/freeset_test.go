// SPDX-License-Identifier: Apache-2.0

package freeset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
)

const frame = 1 << FrameShift

func records(rs ...protocol.Record) []byte {
	var p []byte
	for _, r := range rs {
		p = binary.LittleEndian.AppendUint64(p, uint64(r))
	}
	return p
}

func collect(s *Set, minFrames uint64) []Range { return slices.Collect(s.Ranges(minFrames)) }

func TestBlocksCoalesce(t *testing.T) {
	memory := []Range{{0, 640 << 10}, {1 << 20, 1 << 30}, {4 << 30, 1 << 30}}
	for _, tc := range []struct {
		name  string
		shift uint8
		in    []protocol.Record
		want  []Range
	}{
		{"no block gives no range", 12, nil, nil},
		{"one page", 12, []protocol.Record{protocol.MakeRecord(5, 0)}, []Range{{5 * frame, frame}}},
		{
			"neighbours in descending order become one range", 12,
			[]protocol.Record{protocol.MakeRecord(1024+8, 3), protocol.MakeRecord(1024+4, 2), protocol.MakeRecord(1024, 2)},
			[]Range{{1024 * frame, 16 * frame}},
		},
		{
			"a hole of one page splits", 12,
			[]protocol.Record{protocol.MakeRecord(1024, 0), protocol.MakeRecord(1026, 1)},
			[]Range{{1024 * frame, frame}, {1026 * frame, 2 * frame}},
		},
		{
			"a block of order 18 fills words", 12,
			[]protocol.Record{protocol.MakeRecord(1<<20, 18)},
			[]Range{{4 << 30, 1 << 30}},
		},
		{
			"areas do not merge across a hole", 12,
			[]protocol.Record{protocol.MakeRecord(128, 5), protocol.MakeRecord(256, 0)},
			[]Range{{128 * frame, 32 * frame}, {256 * frame, frame}},
		},
		{
			"64 KiB pages count as sixteen frames", 16,
			[]protocol.Record{protocol.MakeRecord(1<<16, 1)},
			[]Range{{4 << 30, 128 << 10}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := New(memory)
			if err := s.AddRecords(records(tc.in...), tc.shift, false); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, collect(s, 1)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestBlocksThatAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   protocol.Record
		want error
	}{
		{"unaligned", protocol.MakeRecord(257, 1), ErrUnaligned},
		{"past the end of memory", protocol.MakeRecord(512, 9), ErrOutside},
		{"half past the end", protocol.MakeRecord(256, 9), ErrUnaligned},
		{"in the hole below the second area", protocol.MakeRecord(160, 0), ErrOutside},
		{"from memory into the hole", protocol.MakeRecord(128, 6), ErrOutside},
		{"at an address beyond 64 bits", protocol.MakeRecord(1<<56-1, 0), ErrOutside},
		{"of an order beyond any memory", protocol.MakeRecord(0, 63), ErrOutside},
		{"twice", protocol.MakeRecord(300, 0), ErrOverlap},
		{"over an earlier, smaller one", protocol.MakeRecord(296, 3), ErrOverlap},
		{"of a reserved class", protocol.MakeRecord(301, 0) | 1<<6, ErrClass},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := New([]Range{{0, 160 * frame}, {256 * frame, 256 * frame}})
			if err := s.AddRecords(records(protocol.MakeRecord(300, 0), tc.in), 12, false); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if want := []Range{{300 * frame, frame}}; !slices.Equal(collect(s, 1), want) {
				t.Fatalf("ranges are %v after the refusal, want %v", collect(s, 1), want)
			}
		})
	}
}

func TestOverlapIsMergedWhereItIsAllowed(t *testing.T) {
	s := New([]Range{{0, 1 << 20}})
	err := s.AddRecords(records(protocol.MakeRecord(3, 0), protocol.MakeRecord(0, 3), protocol.MakeRecord(4, 2)), 12, true)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := collect(s, 1), []Range{{0, 8 * frame}}; !slices.Equal(got, want) || s.Frames() != 8 {
		t.Fatalf("got %v, %d frames; want %v, 8", got, s.Frames(), want)
	}
}

func TestAdjacentMemoryIsOneArea(t *testing.T) {
	s := New([]Range{{1 << 20, 1 << 20}, {0, 1 << 20}, {5 << 20, 0}, {^uint64(0) - 5, 100}})
	if s.Capacity() != 512 {
		t.Fatalf("capacity %d frames, want 512", s.Capacity())
	}
	if err := s.Add(0, 512, false); err != nil {
		t.Fatalf("block across the seam: %v", err)
	}
}

// What a frontend says of its memory is not to be trusted.
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
		if err := s.Add(7, 200, false); err != nil {
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
		if err := s.Add(b[0], b[1], false); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := collect(s, 2), []Range{{10 * frame, 2 * frame}, {20 * frame, 3 * frame}}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// TestAgainstNaiveModel compares with a map of frames on random input.
func TestAgainstNaiveModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		memory := []Range{{0, 100 * frame}, {130 * frame, 333 * frame}}
		s, model := New(memory), map[uint64]bool{}
		for range rng.IntN(60) {
			first, count := rng.Uint64N(480), 1+rng.Uint64N(80)
			inside, overlap := true, false
			for f := first; f < first+count; f++ {
				inside = inside && (f < 100 || f >= 130 && f < 463)
				overlap = overlap || model[f]
			}
			inside = inside && (first >= 130 || first+count <= 100)
			allow := rng.IntN(2) == 0
			err := s.Add(first, count, allow)
			switch {
			case !inside:
				if !errors.Is(err, ErrOutside) {
					t.Fatalf("add %d+%d: %v, want ErrOutside", first, count, err)
				}
				continue
			case overlap && !allow:
				if !errors.Is(err, ErrOverlap) {
					t.Fatalf("add %d+%d: %v, want ErrOverlap", first, count, err)
				}
				continue
			case err != nil:
				t.Fatalf("add %d+%d: %v", first, count, err)
			}
			for f := first; f < first+count; f++ {
				model[f] = true
			}
		}
		checkModel(t, s, model)
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

func FuzzAddRecords(f *testing.F) {
	f.Add(records(protocol.MakeRecord(0, 0), protocol.MakeRecord(1024, 10)), uint8(12), true)
	f.Add(records(protocol.MakeRecord(1<<56-1, 63)), uint8(16), false)
	f.Fuzz(func(t *testing.T, p []byte, shift uint8, overlapOK bool) {
		if shift < protocol.MinPageShift || shift > protocol.MaxPageShift {
			return
		}
		s := New([]Range{{0, 1 << 20}, {1 << 30, 5<<20 + 4096}})
		_ = s.AddRecords(p, shift, overlapOK)
		var n uint64
		for r := range s.Ranges(1) {
			n += r.Length / frame
		}
		if n != s.Frames() || n > s.Capacity() {
			t.Fatalf("%d frames in ranges, %d counted, capacity %d", n, s.Frames(), s.Capacity())
		}
	})
}

func TestSmallBlocksAreJudgedLikeAnyOther(t *testing.T) {
	memory := []Range{{0x3000, 200 << FrameShift}, {1 << 30, 64 << FrameShift}}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var p []byte
		for range rng.IntN(40) {
			r := protocol.MakeRecord(rng.Uint64N(260), uint8(rng.IntN(8)))
			switch rng.IntN(20) {
			case 0:
				r += 1 << 26 // in the second piece, or outside
			case 1:
				r |= 1 << 6 // an undefined class
			default: // aligned, as most are
				r &^= protocol.Record((uint64(1)<<r.Order() - 1) << 8)
			}
			p = binary.LittleEndian.AppendUint64(p, uint64(r))
		}
		overlapOK := rng.IntN(2) == 0
		fast, slow := New(memory), New(memory)
		got := fast.AddRecords(p, FrameShift, overlapOK)
		var want error
		for i := 0; i < len(p) && want == nil; i += protocol.RecordSize {
			r := protocol.Record(binary.LittleEndian.Uint64(p[i:]))
			if err := slow.addRecord(r, FrameShift, overlapOK); err != nil {
				want = fmt.Errorf("record %d (%v): %w", i/protocol.RecordSize, r, err)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || fast.Frames() != slow.Frames() ||
			!slices.Equal(slices.Collect(fast.Ranges(1)), slices.Collect(slow.Ranges(1))) {
			t.Fatalf("%x, overlaps allowed %v:\n%d frames, %v, want %d, %v", p, overlapOK,
				fast.Frames(), got, slow.Frames(), want)
		}
		fast.Reset()
		if len(slices.Collect(fast.Ranges(1))) != 0 {
			t.Fatalf("%x: something is left after a reset", p)
		}
	}
}
