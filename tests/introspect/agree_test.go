// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/layout"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
	"github.com/fbpp-project/fbpp/tests/guest"
)

// fourLevels is a processor without 5 levels of page tables.
const fourLevels = "max,-erms,-fsrm,-la57"

// fewVmemmap makes the kernel free most struct pages of its huge pages.
const fewVmemmap = "hugetlb_free_vmemmap=on"

// compared are guests that the host is compared with. What can be told a kernel comes together, as
// each guest has to boot. With -soak there are more, of which each differs in one thing from what a
// kernel does by default.
func compared() map[string]machine {
	machines := map[string]machine{
		"6.1 across the hole": {series: guest.Linux6_1, nodes: []int{3072}},
		"6.12 with two nodes": {series: guest.Linux6_12, nodes: []int{512, 384}},
		"7.3 with two nodes":  {series: guest.Linux7_3, nodes: []int{512, 384}},
		"6.1 with 4 levels and few vmemmap": {
			series: guest.Linux6_1, nodes: []int{512}, cpu: fourLevels, append: []string{fewVmemmap},
		},
		"6.12 with 4 levels and few vmemmap and no KASLR": {
			series: guest.Linux6_12, nodes: []int{512}, cpu: fourLevels,
			append: []string{fewVmemmap, "nokaslr"},
		},
		"7.3 with 4 levels and few vmemmap": {
			series: guest.Linux7_3, nodes: []int{512}, cpu: fourLevels, append: []string{fewVmemmap},
		},
		"6.12 with init_on_free": {
			series: guest.Linux6_12, nodes: []int{512}, append: []string{"init_on_free=1"},
		},
		"7.3 that was never asked": {
			series: guest.Linux7_3, nodes: []int{256}, append: []string{"init_on_alloc=0"},
		},
	}

	if !*soak {
		return machines
	}
	maps.Copy(machines, map[string]machine{
		"6.1":               {series: guest.Linux6_1, nodes: []int{512}},
		"6.12":              {series: guest.Linux6_12, nodes: []int{512}},
		"7.3":               {series: guest.Linux7_3, nodes: []int{512}},
		"6.1 with 4 levels": {series: guest.Linux6_1, nodes: []int{512}, cpu: fourLevels},
		"6.12 with 4 levels": {
			series: guest.Linux6_12, nodes: []int{512}, cpu: fourLevels,
			append: []string{"nokaslr"},
		},
		"7.3 with 4 levels": {series: guest.Linux7_3, nodes: []int{512}, cpu: fourLevels},
		"6.1 with few vmemmap": {
			series: guest.Linux6_1, nodes: []int{512}, append: []string{fewVmemmap},
		},
		"6.12 with few vmemmap": {
			series: guest.Linux6_12, nodes: []int{512}, append: []string{fewVmemmap},
		},
		"7.3 with few vmemmap": {
			series: guest.Linux7_3, nodes: []int{512}, append: []string{fewVmemmap},
		},
	})
	return machines
}

func TestHostAgreesWithTheGuest(t *testing.T) {
	for name, m := range compared() {
		t.Run(name, func(t *testing.T) {
			m.kinds = allKinds
			s := mustBoot(t, m)
			t.Log(s.release, s.loaded)
			if slices.Contains(m.append, fewVmemmap) {
				const setting = "/proc/sys/vm/hugetlb_optimize_vmemmap"
				if got := s.mustRun(t, "/init", "show", setting); got != "1" {
					t.Errorf("vmemmap is not optimised: %q", got)
				}
			}
			mem := s.mustMemory(t)
			k := mustLocate(t, mem, 0)
			if k.Release != s.release {
				t.Errorf("found Linux %s, the guest runs %s", k.Release, s.release)
			}
			view := s.mustPauseWithView(t, k)
			before := s.blocks(t)
			s.mustAgree(t, mem, view)
			if after := s.blocks(t); after != before {
				t.Errorf("looking changed the guest's memory from %d to %d blocks", before, after)
			}
			content, err := k.Content()
			if err != nil {
				t.Fatal(err)
			}
			if want := slices.Contains(m.append, "init_on_free=1"); content.InitOnFree != want ||
				content.Matters() {
				t.Errorf("contents: %+v", content)
			}
			// Debian's kernels have it on by default.
			if want := !slices.Contains(m.append, "init_on_alloc=0"); content.InitOnAlloc != want {
				t.Errorf("contents: %+v", content)
			}
		})
	}
}

func mustLocate(t *testing.T, mem *physmem.Memory, hint uint64) *introspect.Kernel {
	t.Helper()
	begin := time.Now()
	k, err := introspect.Locate(t.Context(), mem, introspect.Options{Hint: hint})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("located in %v with hint %#x", time.Since(begin), hint)
	if err := k.Check(); err != nil {
		t.Fatal(err)
	}
	return k
}

// mustSee scans the guest's memory map, and returns the census and each page.
func mustSee(t *testing.T, k *introspect.Kernel) (*introspect.Census, map[uint64]pages.Page) {
	t.Helper()
	var mu sync.Mutex
	seen := make(map[uint64]pages.Page)
	var end uint64
	census, err := k.Scan(t.Context(), introspect.ScanOptions{
		Workers: runtime.NumCPU(),
		Free: func(blocks []introspect.Block) error {
			for _, b := range blocks {
				if b.PFN < end {
					t.Errorf("the block at %#x begins before %#x", b.PFN, end)
				}
				end = b.PFN + 1<<b.Order
			}
			return nil
		},
		Each: func(pfn, n uint64, p pages.Page) {
			mu.Lock()
			defer mu.Unlock()
			for i := range n {
				if _, twice := seen[pfn+i]; twice {
					t.Errorf("page %#x was counted twice", pfn+i)
				}
				seen[pfn+i] = p
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return census, seen
}

// mustAgree compares what the host finds in the memory of the paused guest with the guest's
// own view.
func (s *subject) mustAgree(t *testing.T, mem *physmem.Memory, v *view) {
	t.Helper()
	k := mustLocate(t, mem, 0)
	k = mustLocate(t, mem, k.NoteAddress())
	begin := time.Now()
	only, err := k.Scan(
		t.Context(),
		introspect.ScanOptions{FreeOnly: true, Free: func([]introspect.Block) error { return nil }},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("found the free blocks in %v, reading %d struct pages", time.Since(begin), only.Read)
	census, seen := mustSee(t, k)
	for i, zone := range census.Zones {
		if !slices.Equal(zone.Blocks, zone.Free) || !slices.Equal(only.Zones[i].Blocks, zone.Free) {
			t.Errorf(
				"node %d zone %s: blocks %v, the kernel counts %v",
				zone.Node,
				zone.Name,
				zone.Blocks,
				zone.Free,
			)
		}
		if free := zone.Classes[pages.Free].Pages; free != zone.FreePages && !t.Failed() {
			// The counter is kept per CPU and brought together later.
			t.Logf(
				"node %d zone %s: %d free pages, the kernel's counter says %d",
				zone.Node,
				zone.Name,
				free,
				zone.FreePages,
			)
		}
	}
	if census.Refused != 0 {
		t.Errorf("%d blocks of a paused guest cannot be", census.Refused)
	}
	c := compare(v, seen, s.series == guest.Linux6_12)
	t.Logf(
		"%d of %d pages differ in class, %d in anything\n%v",
		c.differing(byClass),
		c.pages,
		c.differing(byAll),
		c,
	)
	if c.differing(byAll) > 0 || c.unquiet > c.pages/20 || c.pages == 0 {
		t.Errorf("%d pages differ, %d were not quiet", c.differing(byAll), c.unquiet)
	}
	s.mustAgreeOnAge(t, v, seen)
	mustAgreeOnLists(t, k, v, seen)
	for _, class := range []pages.Class{
		pages.Free, pages.Reserved, pages.Slab, pages.PageTable, pages.Anonymous, pages.KSM,
		pages.File, pages.Shmem, pages.Hugetlb,
	} {
		kind := map[pages.Class]string{pages.KSM: "ksm", pages.Hugetlb: "hugetlb"}[class]
		if kind != "" && strings.Contains(s.loaded, kind+":") {
			continue // the kernel has none, as it says
		}
		if census.Total(class).Pages == 0 {
			t.Errorf("no page is %v: the test tells nothing of this class", class)
		}
	}
}

func TestOldKernelIsRefused(t *testing.T) {
	s := mustBoot(t, machine{series: guest.Linux5_10, nodes: []int{512}})
	_, err := introspect.Locate(t.Context(), s.mustMemory(t), introspect.Options{})
	if !errors.Is(err, layout.ErrUnknown) || !strings.Contains(err.Error(), "before Linux 6.0") {
		t.Fatal(err)
	}
	t.Log(err)
}
