// SPDX-License-Identifier: Apache-2.0

package device

import (
	"math/rand/v2"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
)

// Every bit of an answer is a frame of its range.
func TestBitsBecomeFrames(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []uint64{1, 63, 64, 65, 4096, 70_001} {
		for _, density := range []int{1, 50, 99, 100} {
			of := freeset.Range{GPA: 7 << freeset.FrameShift, Length: n << freeset.FrameShift}
			answer, want := make([]byte, (n+7)/8), uint64(0)
			for i := range n {
				if rnd.IntN(100) < density {
					answer[i/8] |= 1 << (i % 8)
					want++
				}
			}
			answer[len(answer)-1] |= byte(0xff << ((n-1)%8 + 1) & 0xff) // beyond the range
			hot := freeset.New([]freeset.Range{{GPA: 0, Length: 1 << 30}})
			if err := addWritten(hot, of, answer); err != nil {
				t.Fatal(err)
			}
			got := uint64(0)
			for r := range hot.Ranges(1) {
				for f := r.GPA >> freeset.FrameShift; f < r.End()>>freeset.FrameShift; f++ {
					if bit := f - 7; bit >= n || answer[bit/8]>>(bit%8)&1 == 0 {
						t.Fatalf("%d frames, %d %%: frame %d is hot", n, density, f)
					}
					got++
				}
			}
			if got != want {
				t.Errorf("%d frames, %d %%: %d are hot, want %d", n, density, got, want)
			}
		}
	}
	if err := addWritten(freeset.New(nil), freeset.Range{Length: 9 << 12}, []byte{1}); err == nil {
		t.Error("an answer that is too short is taken")
	}
}
