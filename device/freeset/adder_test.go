// SPDX-License-Identifier: Apache-2.0

package freeset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// A call is one call of Add.
type call struct {
	blocks    []Block
	overlapOK bool
}

// large is guest memory that has bins. One piece ends within a word of the bitmap.
var large = []Range{
	{0, 640 << 10}, {1 << 20, 3<<30 - 1<<20}, {4 << 30, 40<<30 + 37*frame}, {60 << 30, 5 * frame},
}

// likeASet makes the calls on a set and on an Adder with bins and trays of the given size, and
// fails unless both come to the same end. It says whether that is ErrOverlap.
func likeASet(t *testing.T, calls []call, size, width int) (overlap bool) {
	t.Helper()
	want, got := New(large), New(large)
	a := NewAdder(got)
	a.resize(size, width)
	var wantOutside, gotOutside uint64
	var wantErr, gotErr error
	for _, c := range calls {
		if wantErr == nil {
			var n uint64
			_, n, wantErr = want.Add(c.blocks, c.overlapOK)
			wantOutside += n
		}
		if gotErr == nil {
			var n uint64
			_, n, gotErr = a.Add(c.blocks, c.overlapOK)
			gotOutside += n
		}
	}
	if gotErr == nil {
		gotErr = a.Flush()
	}
	if wantErr != nil || gotErr != nil {
		if !errors.Is(wantErr, ErrOverlap) || !errors.Is(gotErr, ErrOverlap) {
			t.Fatalf("the set returns %v, the Adder %v", wantErr, gotErr)
		}
		return true
	}
	if gotOutside != wantOutside || got.Frames() != want.Frames() {
		t.Fatalf("%d frames and %d outside, want %d and %d",
			got.Frames(), gotOutside, want.Frames(), wantOutside)
	}
	if !slices.Equal(collect(got, 1), collect(want, 1)) {
		t.Fatal("the sets differ")
	}
	return false
}

// TestAnAdderAddsLikeASet makes random reports: of blocks of all sizes in no order, partly
// outside memory, some of which overlap, with passages that are in order or may overlap.
func TestAnAdderAddsLikeASet(t *testing.T) {
	overlaps, rounds := 0, 30
	for seed := range rounds {
		random := rand.New(rand.NewPCG(uint64(seed), 18))
		var blocks []Block
		for range 10_000 {
			order := random.IntN(random.IntN(8) + 1)
			slot := random.Uint64N(62 << 30 / frame / 256) // of 256 frames, for one block
			blocks = append(blocks, Block{slot*256 + random.Uint64N(2)*64, 1 << order})
		}
		slices.SortFunc(blocks, func(a, b Block) int { return int(a.First) - int(b.First) })
		blocks = slices.CompactFunc(blocks, func(a, b Block) bool { return a.First/256 == b.First/256 })
		if seed%3 > 0 {
			random.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
		}
		if seed%2 == 1 { // the same once more, anywhere
			blocks = slices.Insert(blocks, random.IntN(len(blocks)), blocks[random.IntN(len(blocks))])
		}
		var calls []call
		for len(blocks) > 0 {
			n := min(1+random.IntN(600), len(blocks))
			calls = append(calls, call{blocks[:n], seed%5 == 4 && random.IntN(8) == 0})
			blocks = blocks[n:]
		}
		width := 1 << random.IntN(8)
		if likeASet(t, calls, 2*width+random.IntN(6*width), width) {
			overlaps++
		}
	}
	if overlaps < rounds/4 || overlaps > rounds*3/4 {
		t.Errorf("%d of %d reports had an overlap", overlaps, rounds)
	}
}

// TestAnAdderFindsEachOverlap has two equal blocks among many, in each of the ways that
// blocks are added.
func TestAnAdderFindsEachOverlap(t *testing.T) {
	const at = 5 << 30 / frame
	scattered := func(from uint64) (b []Block) {
		for i := range uint64(64) {
			b = append(b, Block{from + i%8*(5<<30/frame) + i, 1})
		}
		return b
	}
	alone, among := []Block{{at, 1}}, scattered(at)
	for name, calls := range map[string][]call{
		"both at once":        {{alone, false}, {alone, false}},
		"the second in a bin": {{alone, false}, {among, false}},
		"the first in a bin":  {{among, false}, {alone, false}},
		"both in bins":        {{among, false}, {among, false}},
		"in a large block":    {{among, false}, {[]Block{{at - 256, 512}}, false}},
		"before it may overlap": {
			{among, false}, {among, false}, {scattered(at + 1000), true},
		},
	} {
		for _, width := range []int{1, 4, 1 << 10} { // 8 blocks of a region come at once
			for _, size := range []int{2 * width, 4 * width} {
				if !likeASet(t, calls, size, width) {
					t.Errorf("%s: no overlap", name)
				}
			}
		}
	}
	if likeASet(t, []call{{among, false}, {among, true}}, 1<<10, 16) {
		t.Error("an overlap that is allowed is refused")
	}
}

func TestASmallSetHasNoBins(t *testing.T) {
	a := NewAdder(New([]Range{{0, minBinned*frame - frame}}))
	if a.base != nil {
		t.Errorf("%d bins", len(a.trays))
	}
}

// TestBinsAreBounded looks at sets of all sizes.
func TestBinsAreBounded(t *testing.T) {
	for _, gib := range []uint64{32, 1 << 10, 2 << 10, 16 << 10} {
		a := NewAdder(New([]Range{{0, gib << 30}}))
		taken := 4 * uint64(a.size*len(a.trays))
		if most := min(gib<<30/32768/2, 16<<20); taken > most || taken < most/2 {
			t.Errorf("%d GiB: bins of %d bytes, want up to %d", gib, taken, most)
		}
	}
}

func FuzzAdder(f *testing.F) {
	f.Add(bytes.Repeat([]byte("a block has 6 bytes"), 20), uint8(3))
	f.Fuzz(func(t *testing.T, p []byte, size uint8) {
		var calls []call
		for len(p) >= 64 {
			c := call{overlapOK: p[0]&7 == 7}
			for ; len(c.blocks) < 10 && len(p) >= 6; p = p[6:] {
				at := uint64(binary.LittleEndian.Uint32(p)) & (1<<24 - 1)
				c.blocks = append(c.blocks, Block{at, uint64(p[4] >> (p[5] & 7))})
			}
			calls = append(calls, c)
		}
		width := int(size&15) + 1
		likeASet(t, calls, 2*width+int(size>>4), width)
	})
}
