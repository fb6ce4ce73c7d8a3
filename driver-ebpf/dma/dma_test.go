// SPDX-License-Identifier: Apache-2.0

package dma

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSegmentsJoinNeighboursAndSplitAtPages(t *testing.T) {
	r := Fixed(make([]byte, 4*4096), 4096, []uint64{7, 8, 20, 3})
	for name, c := range map[string]struct {
		off, n int
		want   []Segment
	}{
		"nothing":               {100, 0, nil},
		"inside a page":         {100, 50, []Segment{{7*4096 + 100, 50}}},
		"over contiguous pages": {4000, 4192, []Segment{{7*4096 + 4000, 4192}}},
		"over a gap": {
			8000, 300, []Segment{{8*4096 + 3904, 192}, {20 * 4096, 108}},
		},
		"all": {
			0, 4 * 4096, []Segment{{7 * 4096, 8192}, {20 * 4096, 4096}, {3 * 4096, 4096}},
		},
		"from a page boundary to the region": {12288, 4096, []Segment{{3 * 4096, 4096}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, r.Slice(c.off, c.n).AppendSegments(nil)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestSegmentsOfTwoSlicesStayApart(t *testing.T) {
	r := Fixed(make([]byte, 4096), 4096, []uint64{7})
	segments := r.Slice(10, 10).AppendSegments(r.Slice(0, 10).AppendSegments(nil))
	if len(segments) != 2 {
		t.Fatalf("got %v, want the two slices as two segments", segments)
	}
}

func TestSliceOfSlice(t *testing.T) {
	r := Fixed([]byte("0123456789"), 4096, []uint64{1})
	s := r.Slice(2, 6).Slice(1, 3)
	if got := string(s.Bytes()); got != "345" || s.Addr() != 4096+3 {
		t.Fatalf("got %q at %#x", got, s.Addr())
	}
	defer func() {
		if recover() == nil {
			t.Fatal("a slice past the end did not panic")
		}
	}()
	s.Slice(1, 3)
}

func TestLocateFindsWhatLiesInTheRegion(t *testing.T) {
	memory := make([]byte, 3*4096)
	r := Fixed(memory[4096:2*4096], 4096, []uint64{9})
	for name, c := range map[string]struct {
		from, to int // in memory
		ok       bool
	}{
		"its beginning":           {4096, 4196, true},
		"its end":                 {8000, 8192, true},
		"all of it":               {4096, 8192, true},
		"nothing":                 {5000, 5000, false},
		"what begins before":      {4095, 4196, false},
		"what ends behind":        {8000, 8193, false},
		"what lies behind it":     {8192, 8200, false},
		"what lies before it":     {0, 4096, false},
		"what is larger than all": {0, 3 * 4096, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, ok := r.Locate(memory[c.from:c.to])
			if ok != c.ok {
				t.Fatalf("located %v, want %v", ok, c.ok)
			}
			if ok && (s.Len() != c.to-c.from || s.Addr() != uint64(9*4096+c.from-4096)) {
				t.Fatalf("%d bytes at %#x", s.Len(), s.Addr())
			}
		})
	}
	if _, ok := (*Region)(nil).Locate(memory); ok {
		t.Error("located in no region")
	}
}

func TestPagemap(t *testing.T) {
	entries := func(e ...uint64) []byte {
		var p []byte
		for _, e := range e {
			p = binary.NativeEndian.AppendUint64(p, e)
		}
		return p
	}
	for name, c := range map[string]struct {
		pagemap []byte
		addr    uintptr
		want    []uint64
		err     error
	}{
		"frames from the address on": {
			entries(0, 1<<63|5, 1<<63|1<<55|9), 4096, []uint64{5, 9}, nil,
		},
		"a page that is not there": {entries(1<<63|5, 0), 0, nil, errNotPresent},
		"a swapped page":           {entries(1<<63|5, 1<<62|77), 0, nil, errNotPresent},
		"hidden frame numbers":     {entries(1<<63, 1<<63), 0, nil, errHidden},
		"the end of the file":      {entries(1 << 63), 0, nil, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readFrames(bytes.NewReader(c.pagemap), c.addr, 2, 4096)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}
