// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

func TestPagesThatWereUsedLately(t *testing.T) {
	const generation = syn.Generation
	const few = 1 << 10
	for name, tc := range map[string]struct {
		page   syn.Page
		active bool
	}{
		"inactive":             {cached(0), false},
		"active":               {cached(syn.Active), true},
		"once active":          {cached(syn.Workingset), true},
		"newest generation":    {cached(generation * 3), true}, // number 6, of four
		"second generation":    {cached(generation * 2), true},
		"third generation":     {cached(generation * 1), false},
		"oldest generation":    {cached(generation * 4), false},
		"old, but once active": {cached(generation*4 | syn.Workingset), true},
		"impossible":           {cached(generation * 7), false},
		"of a group, newest":   {inGroup(cached(generation * 1)), true}, // number 4
		"of a group, second":   {inGroup(cached(generation * 4)), true},
		"of a group, third":    {inGroup(cached(generation * 3)), false},
		"of no group at all": {
			syn.Page{Mapping: anAddress, Flags: onList | generation*3, Group: 1 << 60}, false,
		},
		"a group with flags": {
			syn.Page{Mapping: anAddress, Flags: onList | generation, Group: syn.GroupAddress | 2},
			true,
		},
		"on another processor": {cached(generation*3 | 0x1fffff<<30), true},
		"shared memory":        {cached(syn.SwapBacked | syn.Dirty | generation*3), true},
		"slab":                 {syn.Page{Word: syn.Slab, Flags: generation * 3}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := syn.New(t, few, few)
			s.Put(syn.NodeNewest, 6)
			s.Put(syn.GroupNewest, 4)
			s.Set(7, tc.page)
			s.SetLarge(16, 2, tc.page)
			got := make(map[uint64]pages.Page)
			_, err := locate(t, s).Scan(t.Context(), ScanOptions{
				Each: func(pfn, _ uint64, p pages.Page) {
					if n := pfn - syn.FirstPFN; n < 32 {
						got[n] = p
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []uint64{7, 16, 19} {
				if active := got[n].Attr&pages.Active != 0; active != tc.active {
					t.Errorf("page %d is %+v", n, got[n])
				}
			}
		})
	}
}

// inGroup returns a page of the memory control group.
func inGroup(p syn.Page) syn.Page {
	p.Group = syn.GroupAddress
	return p
}

// Since Linux 7.1 a page names an object that names the group.
func TestTheGroupOfAnObject(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	s.Put(syn.GroupNewest, 4)
	const object = syn.Group + 0x800
	s.Put(object+16, syn.GroupAddress)
	s.Set(7, syn.Page{
		Mapping: anAddress, Flags: onList | syn.Generation, Group: syn.GroupAddress + 0x800,
	})
	k := locate(t, s)
	k.layout.LRU.ObjectMemcg = 16
	c, _ := mustScan(t, k, 1)
	if n := c.Total(pages.File); n.Active != 1 || n.Cold != 0 {
		t.Errorf("%+v", n)
	}
}

// A guest can name as many groups as it has pages.
func TestListsThatAreLookedUpAreBounded(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	s.SetAll(func(n uint64) syn.Page {
		p := cached(syn.Generation)
		p.Group = n << 12
		return p
	})
	k := locate(t, s)
	zones, err := k.Zones()
	if err != nil {
		t.Fatal(err)
	}
	table, err := k.newZoneTable(zones)
	if err != nil {
		t.Fatal(err)
	}
	sc := newScanner(k, zones, table, ScanOptions{})
	if err := sc.scan(t.Context(), span{syn.FirstPFN, syn.FirstPFN + synFew}); err != nil {
		t.Fatal(err)
	}
	if n := len(sc.ages.known); n != maxLists {
		t.Errorf("%d lists are kept", n)
	}
}

func TestRunsOfHotAndColdPages(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	s.SetAll(func(uint64) syn.Page { return anAnonymous })
	for n := range uint64(8) {
		s.Set(n, cached(0))
		s.Set(8+n, cached(syn.Active))
		s.Set(24+n, cached(syn.Dirty))
	}
	s.Set(16, syn.Page{Word: syn.Table})
	s.Set(17, syn.Page{Refcount: 1})
	s.Set(18, syn.Page{Flags: syn.Reserved})
	s.Set(32, syn.Page{Word: syn.Buddy, Private: 5})
	s.Set(syn.SectionPFN-1, cached(0)) // runs end with their section
	s.Set(syn.SectionPFN, cached(0))
	want := []Run{
		{syn.FirstPFN, 8, pages.Cold}, {syn.FirstPFN + 8, 11, pages.Hot},
		{syn.FirstPFN + syn.SectionPFN - 1, 1, pages.Cold},
		{syn.FirstPFN + syn.SectionPFN, 1, pages.Cold},
	}
	for _, workers := range []int{1, 3} {
		var got []Run
		var free []Block
		_, err := locate(t, s).Scan(t.Context(), ScanOptions{
			Workers: workers,
			Order:   func(r []Run) error { got = append(got, r...); return nil },
			Free:    func(b []Block) error { free = append(free, b...); return nil },
		})
		if diff := cmp.Diff(want, got); err != nil || diff != "" || len(free) != 1 {
			t.Errorf("%d workers: %v %d free %s", workers, err, len(free), diff)
		}
	}
}

func TestHeatOfPages(t *testing.T) {
	file := func(attr pages.Attr) pages.Page { return pages.Page{Class: pages.File, Attr: attr} }
	for heat, of := range map[pages.Heat][]pages.Page{
		pages.Hot: {
			{Class: pages.Kernel}, {Class: pages.Slab}, {Class: pages.PageTable},
			{Class: pages.Reserved}, {Class: pages.Anonymous, Attr: pages.Active | pages.Mapped},
			file(pages.Active | pages.Clean),
		},
		pages.Cold: {file(pages.Clean)},
		pages.Warm: {
			{}, {Class: pages.Free}, {Class: pages.Offline}, {Class: pages.Hugetlb},
			{Class: pages.Anonymous}, file(pages.Dirty), file(pages.Mapped), file(0),
			{Class: pages.Shmem, Attr: pages.Dirty},
		},
	} {
		if i := slices.IndexFunc(of, func(p pages.Page) bool { return p.Heat() != heat }); i >= 0 {
			t.Errorf("%+v has heat %d, not %d", of[i], of[i].Heat(), heat)
		}
	}
}
