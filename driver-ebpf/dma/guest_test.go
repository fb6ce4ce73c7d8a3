// SPDX-License-Identifier: Apache-2.0

//go:build guest

package dma

import "testing"

func TestRegionHasPagesOfItsOwnThatStay(t *testing.T) {
	const size = 1 << 20
	r, err := New(size - 5)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Bytes()) != size {
		t.Fatalf("%d bytes", len(r.Bytes()))
	}
	seen := make(map[uint64]bool)
	for _, frame := range r.frames {
		if seen[frame] {
			t.Fatalf("frame %#x twice", frame)
		}
		seen[frame] = true
	}
	for i := range r.Bytes() {
		r.Bytes()[i] = byte(i)
	}
	again, err := lookupFrames(address(r.mem), len(r.frames), r.pageSize)
	if err != nil {
		t.Fatal(err)
	}
	for i := range again {
		if again[i] != r.frames[i] {
			t.Fatalf("page %d moved when it was written", i)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
