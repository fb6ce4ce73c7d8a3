// SPDX-License-Identifier: Apache-2.0

package device

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/freeset"
)

// Every bit of an answer is a frame of its ranges, in their order.
func TestBitsBecomeFrames(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, sizes := range [][]uint64{{1}, {63}, {64}, {65}, {70_001}, {1, 64, 63, 5}, {100, 4096, 7}} {
		for _, density := range []int{1, 50, 99, 100} {
			var pages []freeset.Range
			at, n := uint64(7), uint64(0)
			for _, size := range sizes {
				pages = append(pages, freeset.Range{
					GPA: at << freeset.FrameShift, Length: size << freeset.FrameShift,
				})
				at, n = at+size+100, n+size
			}
			answer, want := make([]byte, (n+7)/8), make(map[uint64]bool)
			bit := uint64(0)
			for _, r := range pages {
				for f := r.GPA >> freeset.FrameShift; f < r.End()>>freeset.FrameShift; f++ {
					if rnd.IntN(100) < density {
						answer[bit/8] |= 1 << (bit % 8)
						want[f] = true
					}
					bit++
				}
			}
			answer[len(answer)-1] |= byte(0xff << ((n-1)%8 + 1) & 0xff) // beyond the ranges
			hot := freeset.New([]freeset.Range{{GPA: 0, Length: 1 << 30}})
			if err := addWritten(hot, pages, answer); err != nil {
				t.Fatal(err)
			}
			for r := range hot.Ranges(1) {
				for f := r.GPA >> freeset.FrameShift; f < r.End()>>freeset.FrameShift; f++ {
					if !want[f] {
						t.Fatalf("%d, %d %%: frame %d is hot", sizes, density, f)
					}
				}
			}
			if got := hot.Frames(); got != uint64(len(want)) {
				t.Errorf("%d, %d %%: %d are hot, want %d", sizes, density, got, len(want))
			}
		}
	}
	pages := []freeset.Range{{Length: 9 << 12}}
	if err := addWritten(freeset.New(nil), pages, []byte{1}); err == nil {
		t.Error("an answer that is too short is taken")
	}
}

// All whole frames are asked for once, in peeks of a bounded size.
func TestPeeksAreAtAllMemory(t *testing.T) {
	const most = maxWatched << freeset.FrameShift
	got := peeksAt(freeset.New([]freeset.Range{
		{GPA: 8 << 40, Length: 5 << 12}, {GPA: 0xa00, Length: 0x2600},
		{GPA: 1 << 40, Length: 2*most - 4<<12},
	}).Memory())
	want := [][]freeset.Range{
		{{GPA: 0x1000, Length: 2 << 12}, {GPA: 1 << 40, Length: most - 2<<12}},
		{{GPA: 1<<40 + most - 2<<12, Length: most - 2<<12}, {GPA: 8 << 40, Length: 2 << 12}},
		{{GPA: 8<<40 + 2<<12, Length: 3 << 12}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := peeksAt(freeset.New([]freeset.Range{{GPA: 0x800, Length: 0x900}}).Memory()); got != nil {
		t.Errorf("less than a frame: %v", got)
	}
}
