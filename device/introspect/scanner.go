// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"

	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// scanner scans spans, one after the other. One goroutine uses it.
type scanner struct {
	k       *Kernel
	win     *window
	class   *pages.Classifier
	zones   *zoneTable
	orders  uint64
	tally   *tally
	found   [][]uint64 // free blocks, by zone and order
	collect bool       // whether to collect blocks
	only    bool       // ScanOptions.FreeOnly
	each    func(pfn, n uint64, page pages.Page)
	ordered bool         // whether to collect runs
	ages    *generations // nil where the kernel has none
	finds   finds
	size    uint64 // of a struct page

	large         compound
	refuted       uint64 // the last frame that was named as a head and is none
	first, second []byte // buffers for a head and its first tail outside of win
}

// compound is a compound page. A scanner keeps the last one, for its tails.
type compound struct {
	head, end uint64 // page frame numbers
	page      pages.Page
}

func newScanner(k *Kernel, zones []Zone, table *zoneTable, o ScanOptions) *scanner {
	size := k.layout.Page.Size
	s := &scanner{
		k: k, win: newWindow(k), class: pages.NewClassifier(&k.layout.Page),
		zones: table, orders: uint64(k.layout.Zone.Orders), tally: newTally(len(zones)),
		collect: o.Free != nil, only: o.FreeOnly, each: o.Each, size: uint64(size),
		ordered: o.Order != nil, ages: newGenerations(k, table),
		first: make([]byte, size), second: make([]byte, size),
	}
	for range zones {
		s.found = append(s.found, make([]uint64, s.orders))
	}
	return s
}

// scan classifies the pages of a span. It ends soon after ctx does: the guest decides
// how much there is to read for each page.
func (s *scanner) scan(ctx context.Context, sp span) error {
	for pfn := sp.start; pfn < sp.end; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		run, err := s.win.from(pfn, sp.end)
		if err != nil {
			return err
		}
		for uint64(len(run)) >= s.size && pfn < sp.end {
			n := uint64(1)
			p := run[:s.size]
			s.tally.read++
			if order, free := s.class.FreeOrder(p); free {
				if n, err = s.free(pfn, order, p, sp); err != nil {
					return err
				}
			} else if !s.only {
				s.used(pfn, p)
			}
			pfn += n
			run = run[min(n*s.size, uint64(len(run))):]
		}
	}
	return nil
}

// count counts n pages from pfn on.
func (s *scanner) count(pfn, flags uint64, page pages.Page, n uint64) {
	if s.each != nil {
		s.each(pfn, n, page)
	}
	s.tally.add(s.zones.find(flags), page, n)
	if s.ordered {
		s.finds.addRun(pfn, n, page.Heat())
	}
}

// aged returns a page with the attribute Active if its generation says so. p is the
// struct page of the page, or of its head.
func (s *scanner) aged(page pages.Page, p []byte) pages.Page {
	if s.ages == nil || page.Attr&pages.Active != 0 {
		return page
	}
	switch page.Class {
	case pages.Anonymous, pages.KSM, pages.File, pages.Shmem:
		if s.ages.young(p, s.class.Flags(p)) {
			page.Attr |= pages.Active
		}
	}
	return page
}

// free counts a free block, and returns how many pages it has.
func (s *scanner) free(pfn, order uint64, p []byte, sp span) (uint64, error) {
	flags := s.class.Flags(p)
	zone := s.zones.find(flags)
	if order >= s.orders || pfn&(1<<order-1) != 0 || pfn+1<<order > sp.end || zone < 0 {
		s.tally.refused++
		s.count(pfn, flags, pages.Page{Class: pages.Unknown}, 1)
		return 1, nil
	}
	s.count(pfn, flags, pages.Page{Class: pages.Free}, 1<<order)
	s.found[zone][order]++
	if s.collect {
		frames, err := s.win.frames(pfn)
		if err != nil {
			return 0, err
		}
		s.finds.blocks = append(s.finds.blocks, Block{PFN: pfn, Order: uint8(order), Evidence: frames})
	}
	return 1 << order, nil
}

// used counts a page that is not free.
func (s *scanner) used(pfn uint64, p []byte) {
	flags := s.class.Flags(p)
	if pfn-s.large.head < s.large.end-s.large.head { // in the last compound page
		page := s.large.page
		if s.class.PartMapped(p) && page.Class != pages.Hugetlb && page.Attr&pages.Mapped == 0 {
			page.Attr = page.Attr&^pages.Clean | pages.Mapped
		}
		s.count(pfn, flags, page, 1)
		return
	}
	head, tail := s.class.Tail(p)
	if !tail && !s.class.IsHead(p) {
		s.count(pfn, flags, s.aged(s.class.Single(p), p), 1)
		return
	}
	at := pfn
	if tail {
		at = s.headOf(pfn, head)
	}
	page := pages.Page{Class: pages.Unknown}
	if at != s.refuted || at == pfn {
		if s.meet(at, pfn) {
			page = s.large.page
		} else {
			s.refuted = at
		}
	}
	s.count(pfn, flags, page, 1)
}

// headOf returns the frame of a tail's head, or pfn if the tail names none before
// it.
func (s *scanner) headOf(pfn uint64, h pages.Head) uint64 {
	if h.Order > 0 {
		return pfn &^ (1<<h.Order - 1)
	}
	ahead := h.Address - s.k.memMap.base
	if h.Address < s.k.memMap.base || ahead%s.size != 0 || ahead/s.size >= pfn {
		return pfn
	}
	return ahead / s.size
}

// maxLargeOrder bounds compound pages, to 16 GiB.
const maxLargeOrder = 22

// meet reads the compound page with that head and keeps it in s.large. It returns
// false when the struct pages contradict each other, or pfn is not in it.
func (s *scanner) meet(head, pfn uint64) bool {
	first, err := s.structPage(head, s.first)
	if err != nil {
		return false
	}
	second, err := s.structPage(head+1, s.second)
	if err != nil {
		return false
	}
	back, tail := s.class.Tail(second)
	if !tail || !s.class.IsHead(first) {
		return false
	}
	if truth := s.headOf(head+1, back); truth != head {
		// A tail that looks like a head: see pages.Classifier.Tail.
		return head == pfn && truth < head && s.meet(truth, pfn)
	}
	order := s.class.LargeOrder(second)
	if order < 1 || order > maxLargeOrder || head&(1<<order-1) != 0 || pfn-head >= 1<<order {
		return false
	}
	page := s.aged(s.class.Large(first, second), first)
	s.large = compound{head: head, end: head + 1<<order, page: page}
	return true
}

// structPage returns the struct page of any frame: from the window if it is there,
// or else read into buf.
func (s *scanner) structPage(pfn uint64, buf []byte) ([]byte, error) {
	if ahead := pfn - s.win.first; ahead < s.win.count {
		return s.win.buf[ahead*s.size:][:s.size], nil
	}
	return buf, s.k.space.Read(buf, s.k.pageAddress(pfn))
}
