// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
	"github.com/fbpp-project/fbpp/device/introspect/layout"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// mustScan scans and returns what was found, with all blocks.
func mustScan(tb testing.TB, k *Kernel, workers int) (*Census, []Block) {
	tb.Helper()
	var blocks []Block
	c, err := k.Scan(tb.Context(), ScanOptions{Workers: workers, Free: func(b []Block) error {
		blocks = append(blocks, b...)
		return nil
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return c, blocks
}

// found returns the counts of the classes that have pages.
func found(c *Census) map[pages.Class]Counts {
	classes := make(map[pages.Class]Counts)
	for class := range pages.Classes {
		if n := c.Total(class); n != (Counts{}) {
			classes[class] = n
		}
	}
	return classes
}

const (
	anAddress = 0xffff888012345600 // of an address_space or anon_vma
	onList    = syn.LRU | syn.Uptodate
	swappable = onList | syn.SwapBacked
)

var anAnonymous = syn.Page{Mapping: anAddress | 1, Flags: swappable, Refcount: 1, Word: 1}

// cached is a page of a file, with further flags.
func cached(flags uint64) syn.Page {
	return syn.Page{Mapping: anAddress, Flags: onList | flags, Refcount: 1}
}

func TestPagesAreClassified(t *testing.T) {
	for name, tc := range map[string]struct {
		page syn.Page
		want pages.Class
		attr pages.Attr
	}{
		"not in use":         {syn.Page{}, pages.Unknown, 0},
		"in use":             {syn.Page{Refcount: 1}, pages.Kernel, 0},
		"reserved":           {syn.Page{Flags: syn.Reserved, Refcount: 1}, pages.Reserved, 0},
		"slab":               {syn.Page{Word: syn.Slab, Mapping: 1}, pages.Slab, 0},
		"page table":         {syn.Page{Word: syn.Table, Refcount: 1}, pages.PageTable, 0},
		"balloon":            {syn.Page{Word: syn.Offline, Refcount: 1}, pages.Offline, 0},
		"type with an owner": {syn.Page{Word: syn.Table | 0x1234}, pages.PageTable, 0},
		"type not known":     {syn.Page{Word: 0xe0 << 24}, pages.Unknown, 0},
		"anonymous": {
			anAnonymous, pages.Anonymous, pages.Mapped,
		},
		"swap cache": {
			syn.Page{Mapping: anAddress | 1, Flags: swappable | syn.SwapCache, Refcount: 1},
			pages.Anonymous, pages.SwapCache},
		"swapped in ahead": {
			syn.Page{Flags: swappable | syn.SwapCache, Refcount: 1},
			pages.Anonymous, pages.SwapCache,
		},
		"merged": {
			syn.Page{Mapping: anAddress | 3, Flags: onList, Refcount: 2, Word: 1},
			pages.KSM, pages.Mapped,
		},
		"movable": {
			syn.Page{Mapping: anAddress | 2, Flags: onList, Refcount: 1}, pages.Kernel, 0,
		},
		"clean cache": {
			syn.Page{Mapping: anAddress, Flags: onList, Refcount: 1}, pages.File, pages.Clean,
		},
		"mapped file": {
			syn.Page{Mapping: anAddress, Flags: onList, Refcount: 2, Word: 3},
			pages.File, pages.Mapped,
		},
		"dirty cache": {
			cached(syn.Dirty), pages.File, pages.Dirty,
		},
		"written cache": {
			cached(syn.Writeback), pages.File, pages.Writeback,
		},
		"locked cache": {
			syn.Page{Mapping: anAddress, Flags: onList | syn.Locked, Refcount: 1}, pages.File, 0,
		},
		"cache being read": {
			syn.Page{Mapping: anAddress, Flags: syn.LRU, Refcount: 1}, pages.File, 0,
		},
		"of a driver": {syn.Page{Mapping: anAddress, Refcount: 1}, pages.Unknown, 0},
		"shared memory": {
			cached(syn.SwapBacked | syn.Dirty), pages.Shmem, pages.Dirty,
		},
		"tail of nothing": {syn.Page{Head: 5}, pages.Unknown, 0},
		"tail of itself": {
			syn.Page{Head: syn.Vmemmap + (syn.FirstPFN+7)*syn.PageSize | 1}, pages.Unknown, 0,
		},
		"head of nothing":   {syn.Page{Flags: syn.Head}, pages.Unknown, 0},
		"block of order 64": {syn.Page{Word: syn.Buddy, Private: 64}, pages.Unknown, 0},
		"block not aligned": {syn.Page{Word: syn.Buddy, Private: 1}, pages.Unknown, 0},
		"block of one page": {syn.Page{Word: syn.Buddy}, pages.Free, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := syn.New(t, synFew, synFew)
			s.Set(7, tc.page)
			got := make(map[uint64]pages.Page)
			_, err := locate(t, s).Scan(t.Context(), ScanOptions{
				Each: func(pfn, _ uint64, p pages.Page) { got[pfn] = p },
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := (pages.Page{Class: tc.want, Attr: tc.attr}); got[syn.FirstPFN+7] != want {
				t.Fatalf("got %+v, want %+v", got[syn.FirstPFN+7], want)
			}
		})
	}
}

func TestLargePages(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	s.SetLarge(0, 9, syn.Page{Mapping: anAddress | 1, Flags: swappable, Refcount: 512})
	s.SetLarge(512, 2, syn.Page{Mapping: anAddress, Flags: onList | syn.Dirty, Refcount: 4})
	// A tail that names this head, but lies after the compound page.
	s.Set(600, syn.Page{Head: syn.Vmemmap + (syn.FirstPFN+512)*syn.PageSize | 1})
	// Each is two sections long. The first is not aligned to its size.
	s.SetLarge(syn.SectionPFN, 16, syn.Page{Word: syn.Hugetlb})
	s.SetLarge(2*syn.SectionPFN, 16, syn.Page{Word: syn.Hugetlb})
	for _, workers := range []int{1, 3} {
		c, _ := mustScan(t, locate(t, s), workers)
		want := map[pages.Class]Counts{
			pages.Anonymous: {Pages: 512},
			pages.File:      {Pages: 4, Dirty: 4},
			pages.Hugetlb:   {Pages: 2 * syn.SectionPFN},
			pages.Unknown:   {Pages: 2*syn.SectionPFN - 512 - 4},
		}
		if diff := cmp.Diff(want, found(c)); diff != "" {
			t.Fatalf("%d workers: %s", workers, diff)
		}
	}
}

// With the vmemmap optimisation for huge pages, all pages of a huge page's memory
// map are mapped to the first one. So some tails look like heads.
func TestFalseHeadsOfHugePages(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	s.SetLarge(512, 9, syn.Page{Word: syn.Hugetlb})
	for n := uint64(512 + 64); n < 1024; n += 64 {
		copy(s.Low[syn.MemMap+n*syn.PageSize:][:4096], s.Low[syn.MemMap+512*syn.PageSize:])
	}
	c, _ := mustScan(t, locate(t, s), 1)
	if got := c.Total(pages.Hugetlb).Pages; got != 512 {
		t.Fatalf("%d pages", got)
	}
	// A scan that begins in the middle reads a false head first.
	k := locate(t, s)
	for n := uint64(512); n < 1024; n += 32 {
		var got pages.Page
		sc := newScanner(k, nil, &zoneTable{shift: 63, index: []int16{-1, -1}},
			ScanOptions{Each: func(_, _ uint64, p pages.Page) { got = p }})
		if err := sc.scan(t.Context(), span{syn.FirstPFN + n, syn.FirstPFN + n + 1}); err != nil {
			t.Fatal(err)
		}
		if got.Class != pages.Hugetlb {
			t.Errorf("page %d: %v", n, got.Class)
		}
	}
}

func TestFreeBlocksAndTheirEvidence(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	want := []Block{
		{PFN: 0, Order: 10}, {PFN: 1024, Order: 0}, {PFN: 1026, Order: 1}, {PFN: 1088, Order: 5},
		{
			PFN:   syn.SectionPFN - 1,
			Order: 0,
		}, {PFN: 2 * syn.SectionPFN, Order: 10}, {PFN: synFew - 1024, Order: 10},
	}
	for i, b := range want {
		s.Set(b.PFN, syn.Page{Word: syn.Buddy, Private: uint64(b.Order)})
		frame := syn.MemMap>>pageShift + b.PFN/64
		want[i].PFN += syn.FirstPFN
		want[i].Evidence = [2]uint64{frame, frame}
	}
	// Struct pages within a free block are not read, whatever they say.
	s.Set(512, syn.Page{Word: syn.Buddy, Private: 1})
	for _, workers := range []int{0, 1, 2, 3, 100} {
		c, blocks := mustScan(t, locate(t, s), workers)
		if diff := cmp.Diff(want, blocks); diff != "" {
			t.Fatalf("%d workers: %s", workers, diff)
		}
		counted := []uint64{2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 3}
		if got := c.Zones[0].Blocks; !cmp.Equal(got, counted) {
			t.Fatalf("blocks %v", got)
		}
		if c.Total(pages.Free).Pages != 3*1024+2+2+32 || c.Refused != 0 {
			t.Fatalf("%+v refused %d", found(c), c.Refused)
		}
		if c.Read >= synFew-3*1023 {
			t.Fatalf("%d struct pages were read of %d", c.Read, synFew)
		}
	}
}

func TestImpossibleBlocksAreRefused(t *testing.T) {
	s := syn.New(t, synFew-512, synFew)
	for n, order := range map[uint64]uint64{
		1: 1, 2: 2, 1024: 11, 2048: 1 << 32,
		synFew - 1024: 10, // ends outside of RAM
	} {
		s.Set(n, syn.Page{Word: syn.Buddy, Private: order})
	}
	c, blocks := mustScan(t, locate(t, s), 1)
	if len(blocks) != 0 || c.Refused != 5 {
		t.Fatalf("%v, refused %d", blocks, c.Refused)
	}
}

func TestScanEnds(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	for n := range uint64(4) {
		s.Set(n*syn.SectionPFN, syn.Page{Word: syn.Buddy, Private: 3})
	}
	k := locate(t, s)
	stop := errors.New("stop")
	calls := 0
	_, err := k.Scan(t.Context(), ScanOptions{Workers: 2, Free: func([]Block) error {
		calls++
		return stop
	}})
	if !errors.Is(err, stop) || calls != 1 {
		t.Fatalf("%v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := k.Scan(ctx, ScanOptions{Workers: 2}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
}

func TestMemoryThatContradictsItself(t *testing.T) {
	const zone = syn.Node + syn.Zone*syn.ZoneSize
	for name, tc := range map[string]struct {
		offset int
		word   uint64
		want   error
	}{
		"no nodes":               {syn.NodeTable, 0, layout.ErrUnknown},
		"node in no memory":      {syn.NodeTable, 1 << 62, nil},
		"no zones":               {zone + 24, 0, layout.ErrUnknown},
		"zone of another number": {syn.Node + 5*syn.ZoneSize, 3, layout.ErrUnknown},
		"node out of range":      {syn.Node + 5*syn.ZoneSize, 1 << 20, layout.ErrUnknown},
		"name in no memory":      {zone, 8, nil},
		"sections in no memory":  {syn.Variables + 16, 8, nil},
		"struct pages elsewhere": {syn.Sections, (syn.Vmemmap + 1<<30) | 7, layout.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			s := syn.New(t, synFew, synFew)
			s.Put(tc.offset, tc.word)
			_, err := locate(t, s).Scan(t.Context(), ScanOptions{})
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestSectionsThatAreOffline(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	const first = syn.Sections + syn.FirstPFN/syn.SectionPFN*16
	s.Put(first+16, syn.Vmemmap|sectionHasMap|1)
	s.Put(first+32, 0)
	c, _ := mustScan(t, locate(t, s), 1)
	if c.Read != 2*syn.SectionPFN {
		t.Fatalf("%d struct pages", c.Read)
	}
}

// The guest says how large its sections are. What a scan holds at a time depends on that
// as little as how long a scan goes on that is not wanted any more.
func TestSectionsOfAnySizeAreScannedInParts(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	s.Facts["NUMBER(SECTION_SIZE_BITS)"] = "32"
	s.PutNote()
	s.Put(syn.Sections+16, syn.Vmemmap|sectionHasMap|sectionOnline|1)
	k := locate(t, s)
	for n := uint64(0); n < synFew; n++ {
		s.Set(n, syn.Page{Word: syn.Buddy})
	}
	longest, all := 0, 0
	_, err := k.Scan(t.Context(), ScanOptions{Free: func(blocks []Block) error {
		longest, all = max(longest, len(blocks)), all+len(blocks)
		return nil
	}})
	if err != nil || longest > maxSpan || all != synFew {
		t.Errorf("%d free blocks, %d at a time, %v", all, longest, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := 0
	_, err = k.Scan(ctx, ScanOptions{Each: func(uint64, uint64, pages.Page) {
		cancel()
		seen++
	}})
	if !errors.Is(err, context.Canceled) || seen > 2*manyPages {
		t.Errorf("%d pages were looked at after the scan was cancelled, %v", seen, err)
	}
}

// A zone's name is shown to operators, and a guest may write anything there.
func TestNamesOfZonesArePrintable(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	copy(s.Image(syn.ZoneNames), "No\x1brmal\x00")
	if c, _ := mustScan(t, locate(t, s), 1); c.Zones[0].Name != "No?rmal" {
		t.Errorf("the zone is named %q", c.Zones[0].Name)
	}
}
