// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// found returns the classes that a census has, without zeroes.
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
	anAddress = 0xffff888012345600 // of an inode's pages
	onList    = synLRU | synUptodate
	swappable = onList | synSwapBacked
)

var anAnonymous = structPage{mapping: anAddress | 1, flags: swappable, refcount: 1, word: 1}

// cached is a page of a file, with further flags.
func cached(flags uint64) structPage {
	return structPage{mapping: anAddress, flags: onList | flags, refcount: 1}
}

func TestPagesAreClassified(t *testing.T) {
	for name, tc := range map[string]struct {
		page structPage
		want pages.Class
		attr pages.Attr
	}{
		"not in use":         {structPage{}, pages.Unknown, 0},
		"in use":             {structPage{refcount: 1}, pages.Kernel, 0},
		"reserved":           {structPage{flags: synReserved, refcount: 1}, pages.Reserved, 0},
		"slab":               {structPage{word: synSlab, mapping: 1}, pages.Slab, 0},
		"page table":         {structPage{word: synTable, refcount: 1}, pages.PageTable, 0},
		"balloon":            {structPage{word: synOffline, refcount: 1}, pages.Offline, 0},
		"type with an owner": {structPage{word: synTable | 0x1234}, pages.PageTable, 0},
		"type not known":     {structPage{word: 0xe0 << 24}, pages.Unknown, 0},
		"anonymous": {
			anAnonymous, pages.Anonymous, pages.Mapped,
		},
		"swap cache": {
			structPage{mapping: anAddress | 1, flags: swappable | synSwapCache, refcount: 1},
			pages.Anonymous, pages.SwapCache},
		"swapped in ahead": {
			structPage{flags: swappable | synSwapCache, refcount: 1},
			pages.Anonymous, pages.SwapCache,
		},
		"merged": {
			structPage{mapping: anAddress | 3, flags: onList, refcount: 2, word: 1},
			pages.KSM, pages.Mapped,
		},
		"movable": {
			structPage{mapping: anAddress | 2, flags: onList, refcount: 1}, pages.Kernel, 0,
		},
		"clean cache": {
			structPage{mapping: anAddress, flags: onList, refcount: 1}, pages.File, pages.Clean,
		},
		"mapped file": {
			structPage{mapping: anAddress, flags: onList, refcount: 2, word: 3},
			pages.File, pages.Mapped,
		},
		"dirty cache": {
			cached(synDirty), pages.File, pages.Dirty,
		},
		"written cache": {
			cached(synWriteback), pages.File, pages.Writeback,
		},
		"locked cache": {
			structPage{mapping: anAddress, flags: onList | synLocked, refcount: 1}, pages.File, 0,
		},
		"cache being read": {
			structPage{mapping: anAddress, flags: synLRU, refcount: 1}, pages.File, 0,
		},
		"of a driver": {structPage{mapping: anAddress, refcount: 1}, pages.Unknown, 0},
		"shared memory": {
			cached(synSwapBacked | synDirty), pages.Shmem, pages.Dirty,
		},
		"tail of nothing": {structPage{head: 5}, pages.Unknown, 0},
		"tail of itself": {
			structPage{head: synVmemmap + (synFirstPFN+7)*synPageSize | 1}, pages.Unknown, 0,
		},
		"head of nothing":   {structPage{flags: synHead}, pages.Unknown, 0},
		"block of order 64": {structPage{word: synBuddy, private: 64}, pages.Unknown, 0},
		"block not aligned": {structPage{word: synBuddy, private: 1}, pages.Unknown, 0},
		"block of one page": {structPage{word: synBuddy}, pages.Free, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSynthetic(t, synFew, synFew)
			s.set(7, tc.page)
			got := make(map[uint64]pages.Page)
			_, err := s.locate(t).Scan(t.Context(), ScanOptions{
				Each: func(pfn, _ uint64, p pages.Page) { got[pfn] = p },
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := (pages.Page{Class: tc.want, Attr: tc.attr}); got[synFirstPFN+7] != want {
				t.Fatalf("got %+v, want %+v", got[synFirstPFN+7], want)
			}
		})
	}
}

func TestLargePages(t *testing.T) {
	s := newSynthetic(t, synFew, synFew)
	s.setLarge(
		0,
		9,
		structPage{mapping: anAddress | 1, flags: onList | synSwapBacked, refcount: 512},
	)
	s.setLarge(512, 2, structPage{mapping: anAddress, flags: onList | synDirty, refcount: 4})
	s.set(
		600,
		structPage{head: synVmemmap + (synFirstPFN+512)*synPageSize | 1},
	) // beyond that head's order
	s.setLarge(
		synSectionPFN,
		16,
		structPage{word: synHugetlb},
	) // of two sections, if aligned
	s.setLarge(2*synSectionPFN, 16, structPage{word: synHugetlb})
	for _, workers := range []int{1, 3} {
		c, _ := mustScan(t, s.locate(t), workers)
		want := map[pages.Class]Counts{
			pages.Anonymous: {Pages: 512},
			pages.File:      {Pages: 4, Dirty: 4},
			pages.Hugetlb:   {Pages: 2 * synSectionPFN},
			pages.Unknown:   {Pages: 2*synSectionPFN - 512 - 4},
		}
		if diff := cmp.Diff(want, found(c)); diff != "" {
			t.Fatalf("%d workers: %s", workers, diff)
		}
	}
}

// With vmemmap optimised for huge pages, the struct pages of tails are those of
// the head's page of the memory map, over and over.
func TestFalseHeadsOfHugePages(t *testing.T) {
	s := newSynthetic(t, synFew, synFew)
	s.setLarge(512, 9, structPage{word: synHugetlb})
	for n := uint64(512 + 64); n < 1024; n += 64 {
		copy(s.low[synMemMap+n*synPageSize:][:4096], s.low[synMemMap+512*synPageSize:])
	}
	c, _ := mustScan(t, s.locate(t), 1)
	if got := c.Total(pages.Hugetlb).Pages; got != 512 {
		t.Fatalf("%d pages", got)
	}
	// Each is met first where a scan begins in the middle.
	k := s.locate(t)
	for n := uint64(512); n < 1024; n += 32 {
		var got pages.Page
		sc := newScanner(k, nil, &zoneTable{shift: 63, index: []int16{-1, -1}},
			ScanOptions{Each: func(_, _ uint64, p pages.Page) { got = p }})
		if err := sc.scan(span{synFirstPFN + n, synFirstPFN + n + 1}); err != nil {
			t.Fatal(err)
		}
		if got.Class != pages.Hugetlb {
			t.Errorf("page %d: %v", n, got.Class)
		}
	}
}

func TestFreeBlocksAndTheirEvidence(t *testing.T) {
	s := newSynthetic(t, synFew, synFew)
	want := []Block{
		{PFN: 0, Order: 10}, {PFN: 1024, Order: 0}, {PFN: 1026, Order: 1}, {PFN: 1088, Order: 5},
		{
			PFN:   synSectionPFN - 1,
			Order: 0,
		}, {PFN: 2 * synSectionPFN, Order: 10}, {PFN: synFew - 1024, Order: 10},
	}
	for i, b := range want {
		s.set(b.PFN, structPage{word: synBuddy, private: uint64(b.Order)})
		frame := synMemMap>>pageShift + b.PFN/64
		want[i].PFN += synFirstPFN
		want[i].Evidence = [2]uint64{frame, frame}
	}
	// What says so within a block is not looked at.
	s.set(512, structPage{word: synBuddy, private: 1})
	for _, workers := range []int{0, 1, 2, 3, 100} {
		c, blocks := mustScan(t, s.locate(t), workers)
		if diff := cmp.Diff(want, blocks); diff != "" {
			t.Fatalf("%d workers: %s", workers, diff)
		}
		if got, want := c.Zones[0].Blocks, []uint64{2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 3}; !cmp.Equal(
			got,
			want,
		) {
			t.Fatalf("blocks %v", got)
		}
		if c.Total(pages.Free).Pages != 3*1024+2+2+32 || c.Refused != 0 {
			t.Fatalf("%+v refused %d", found(c), c.Refused)
		}
		if c.Read >= synFew-3*1023 {
			t.Fatalf("%d struct pages were read of %d", c.Read, synFew)
		}
		tables := []uint64{
			synImage >> pageShift,
			(synImage + synMapL3) >> pageShift,
			(synImage + synMapL2) >> pageShift,
		}
		if diff := cmp.Diff(tables, c.Basis); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestBlocksThatCannotBe(t *testing.T) {
	s := newSynthetic(t, synFew-512, synFew)
	for n, order := range map[uint64]uint64{
		1: 1, 2: 2, 1024: 11, 2048: 1 << 32,
		synFew - 1024: 10, // ends outside of RAM
	} {
		s.set(n, structPage{word: synBuddy, private: order})
	}
	c, blocks := mustScan(t, s.locate(t), 1)
	if len(blocks) != 0 || c.Refused != 5 {
		t.Fatalf("%v, refused %d", blocks, c.Refused)
	}
}

func TestScanEnds(t *testing.T) {
	s := newSynthetic(t, synFew, synFew)
	for n := range uint64(4) {
		s.set(n*synSectionPFN, structPage{word: synBuddy, private: 3})
	}
	k := s.locate(t)
	stop := errors.New("stop")
	calls := 0
	_, err := k.Scan(
		t.Context(),
		ScanOptions{Workers: 2, Free: func([]Block) error { calls++; return stop }},
	)
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
	const zone = synNode + synZone*synZoneSize
	for name, tc := range map[string]struct {
		offset int
		word   uint64
		want   error
	}{
		"no nodes":               {synNodeTable, 0, layout.ErrUnknown},
		"node in no memory":      {synNodeTable, 1 << 62, nil},
		"no zones":               {zone + 24, 0, layout.ErrUnknown},
		"zone of another number": {synNode + 5*synZoneSize, 3, layout.ErrUnknown},
		"node out of range":      {synNode + 5*synZoneSize, 1 << 20, layout.ErrUnknown},
		"name in no memory":      {zone, 8, nil},
		"sections in no memory":  {synVariables + 16, 8, nil},
		"struct pages elsewhere": {synSections, (synVmemmap + 1<<30) | 7, layout.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSynthetic(t, synFew, synFew)
			s.put(tc.offset, tc.word)
			_, err := s.locate(t).Scan(t.Context(), ScanOptions{})
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestSectionsThatAreOffline(t *testing.T) {
	s := newSynthetic(t, synFew, synFew)
	const first = synSections + synFirstPFN/synSectionPFN*16
	s.put(first+16, synVmemmap|sectionHasMap|1)
	s.put(first+32, 0)
	c, _ := mustScan(t, s.locate(t), 1)
	if c.Read != 2*synSectionPFN {
		t.Fatalf("%d struct pages", c.Read)
	}
}
