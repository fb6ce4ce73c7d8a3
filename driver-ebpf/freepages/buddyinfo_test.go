// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuddyinfo(t *testing.T) {
	text := "Node 0, zone      DMA      0      0      1 \n" +
		"Node 0, zone   Normal   1046    527    128 \n" +
		"Node 12, zone  Movable      0      0      7 \n"
	got, err := ParseBuddyinfo([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Zone{
		{Node: 0, Name: "DMA", Free: []uint64{0, 0, 1}},
		{Node: 0, Name: "Normal", Free: []uint64{1046, 527, 128}},
		{Node: 12, Name: "Movable", Free: []uint64{0, 0, 7}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if got := countBlocks(got); got != 1+1046+527+128+7 {
		t.Fatalf("%d blocks", got)
	}
}

func TestBuddyinfoRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"a line of something else": "nr_free_pages 12\n",
		"a node without a number":  "Node x, zone DMA 1 2\n",
		"a count that is none":     "Node 0, zone DMA 1 -2\n",
		"a line that is cut":       "Node 0, zone DMA\n",
	} {
		t.Run(name, func(t *testing.T) {
			if zones, err := ParseBuddyinfo([]byte(text)); err == nil {
				t.Fatalf("got %v", zones)
			}
		})
	}
}

func FuzzParseBuddyinfo(f *testing.F) {
	f.Add([]byte("Node 0, zone   Normal   1046    527    128 \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		zones, err := ParseBuddyinfo(text)
		if err != nil && zones != nil {
			t.Fatal("zones beside an error")
		}
	})
}
