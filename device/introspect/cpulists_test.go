// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
	"github.com/fbpp-project/fbpp/device/introspect/layout"
)

// Lists of the synthetic kernel: of single pages, of pairs, and of huge pages.
const (
	singles, pairs, huge = 0, 4, 13
	hugePages            = 512
)

// mustScanLists scans, and returns the blocks of each list, counted from FirstPFN, and why lists
// were left out.
func mustScanLists(t *testing.T, s *syn.Guest) (lists [][]uint64, why error) {
	t.Helper()
	k, err := Locate(t.Context(), s.Memory(t), Options{Hint: syn.Note})
	if err != nil {
		t.Fatal(err)
	}
	c, err := k.Scan(t.Context(), ScanOptions{FreeOnly: true, CPULists: func(list []Block) error {
		var found []uint64
		for _, b := range list {
			frame := (syn.MemMap + (b.PFN-syn.FirstPFN)*syn.PageSize) >> pageShift
			if b.Evidence != [2]uint64{frame, frame} {
				t.Errorf("block %+v, its struct page is in frame %#x", b, frame)
			}
			found = append(found, b.PFN-syn.FirstPFN)
		}
		lists = append(lists, found)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return lists, c.CPULists
}

func TestListsOfCPUsAreRead(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	s.PutCPUList(0, singles, 700, 5, 64)
	s.PutCPUList(0, pairs, 10, 4096)
	s.PutCPUList(0, huge, 1024)
	s.PutCPUCount(0, 3+2*2+hugePages)
	s.PutCPUList(1, singles, 6)
	s.PutCPUCount(1, 1)
	got, why := mustScanLists(t, s)
	want := [][]uint64{{700, 5, 64}, {10, 4096}, {1024}, {6}}
	if !slices.EqualFunc(got, want, slices.Equal) || why != nil {
		t.Fatalf("lists %v, %v; want %v", got, why, want)
	}
}

// What does not hang together is left out, and so are all lists of that CPU and zone. Where the
// kernel counts other pages than its lists have, they are not understood.
func TestListsOfCPUsThatCannotBeAreLeftOut(t *testing.T) {
	link := func(n uint64) int { return syn.MemMap + int(n)*syn.PageSize + 8 - syn.Image }
	address := func(n uint64) uint64 { return syn.Vmemmap + (syn.FirstPFN+n)*syn.PageSize + 8 }
	second := func(at int, value byte) func(*syn.Guest) {
		return func(s *syn.Guest) { s.Low[syn.MemMap+5*syn.PageSize+at] = value }
	}
	for name, tc := range map[string]struct {
		change func(*syn.Guest)
		why    error
	}{
		"a page in use":           {second(52, 1), nil},
		"a slab":                  {second(51, 0xf5), nil},
		"a link back elsewhere":   {func(s *syn.Guest) { s.Put(link(5)+8, 8) }, nil},
		"a loop":                  {func(s *syn.Guest) { s.Put(link(64), address(700)) }, nil},
		"no page":                 {func(s *syn.Guest) { s.Put(link(5), 8) }, nil},
		"a page of another zone":  {func(s *syn.Guest) { s.Put(link(5), syn.Vmemmap+8) }, nil},
		"between two pages":       {func(s *syn.Guest) { s.Put(link(5), address(9)+8) }, nil},
		"a pair that begins odd":  {func(s *syn.Guest) { s.PutCPUList(0, pairs, 11) }, nil},
		"more pages than counted": {func(s *syn.Guest) { s.PutCPUCount(0, 2) }, layout.ErrUnknown},
		"more counted than pages": {func(s *syn.Guest) { s.PutCPUCount(0, 4) }, layout.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			s := syn.New(t, synFew, synFew)
			s.PutCPUList(0, singles, 700, 5, 64)
			s.PutCPUCount(0, 3)
			s.PutCPUList(1, singles, 6)
			s.PutCPUCount(1, 1)
			tc.change(s)
			want := [][]uint64{{6}}
			if tc.why != nil {
				want = nil
			}
			got, why := mustScanLists(t, s)
			if !slices.EqualFunc(got, want, slices.Equal) || !errors.Is(why, tc.why) {
				t.Fatalf("lists %v, %v; want %v, %v", got, why, want, tc.why)
			}
		})
	}
}

// A guest decides how long its lists are, and may change them while they are read. What is
// visited is bounded over all lists and tries, and takes a share of the time at most. The lists
// that were passed before stay.
func TestListsOfCPUsAreBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		limit, share int
		lists        int
		why          error
	}{
		"enough":           {4, timeShare, 2, nil},
		"too many in all":  {3, timeShare, 1, layout.ErrUnknown},
		"too many on one":  {1, timeShare, 0, layout.ErrUnknown},
		"no time for them": {4, 1 << 62, 0, errNoTime},
	} {
		t.Run(name, func(t *testing.T) {
			s := syn.New(t, synFew, synFew)
			s.PutCPUList(0, singles, 700, 5)
			s.PutCPUCount(0, 2)
			s.PutCPUList(1, singles, 6, 9)
			s.PutCPUCount(1, 2)
			c, zones := mustFindLists(t, s)
			c.limit, c.share = tc.limit, tc.share
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			lists := 0
			why, err := c.scan(ctx, zones, func([]Block) error { lists++; return nil })
			if err != nil || !errors.Is(why, tc.why) || lists != tc.lists {
				t.Fatalf("%d lists, %v, %v; want %d, %v", lists, why, err, tc.lists, tc.why)
			}
		})
	}
}

func TestListsOfCPUsAreNotReadWhenTheTimeIsOver(t *testing.T) {
	c, zones := mustFindLists(t, syn.New(t, synFew, synFew))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if why, err := c.scan(ctx, zones, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("the scan ends with %v, %v", why, err)
	}
}

func mustFindLists(t *testing.T, s *syn.Guest) (*cpuLists, []Zone) {
	t.Helper()
	k, err := Locate(t.Context(), s.Memory(t), Options{Hint: syn.Note})
	if err != nil {
		t.Fatal(err)
	}
	zones, err := k.Zones()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCPULists(k)
	if err != nil {
		t.Fatal(err)
	}
	return c, zones
}
