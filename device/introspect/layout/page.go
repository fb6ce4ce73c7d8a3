// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"errors"
	"fmt"
	"math/bits"
)

// maxPageSize bounds struct page; it has 56 to 80 bytes.
const maxPageSize = 256

// Page is the layout of struct page. Fields are offsets in bytes unless a comment
// says otherwise.
type Page struct {
	Size     int // of struct page
	Flags    int
	Mapping  int
	Private  int // of a free block: its order
	Mapcount int // the number of mappings less one, or the page's type
	Refcount int
	Head     int // of a tail page: where its head is

	// HeadMask says that a tail page may hold a mask instead of a pointer,
	// since Linux 7.1 (8c846c879e22).
	HeadMask bool
	// Shift is log2 of Size, or -1 if Size is no power of two.
	Shift int

	Flag  Flags
	Type  Types
	Large Large
}

// Flags are masks of a page's flags. A flag that the kernel does not have is 0.
type Flags struct {
	Locked, Uptodate, Dirty, LRU, Slab, Reserved, Writeback, Head, SwapBacked, SwapCache uint64
	Active, Workingset                                                                   uint64
}

// Types are the marks of page types in the word at Page.Mapcount. A type that the
// kernel does not mark there has a zero mask.
type Types struct {
	Buddy, Table, Offline, Slab, Hugetlb, LargeKmalloc, Guard TypeMark

	// First and End bound the words that are a type and not a mapcount. End is
	// exclusive.
	First, End uint32
}

// TypeMark is the mark of a page type: word&Mask == Value.
type TypeMark struct{ Mask, Value uint32 }

// Match says whether a word has the mark.
func (m TypeMark) Match(word uint32) bool { return m.Mask != 0 && word&m.Mask == m.Value }

// Large is the layout of what a compound page keeps in the struct page after its
// head. Offsets are within that struct page; -1 stands for a field that the kernel
// does not have.
type Large struct {
	Order       int  // one byte
	OrderInWord bool // the byte is the low one of a word of flags
	Mapcount    int  // mappings of the whole and of its pages together, less one
	Entire      int  // mappings of the whole, less one

	// The mark of huge pages of hugetlbfs in kernels without Types.Hugetlb: the
	// number of their destructor, or a flag.
	Destructor      int // one byte
	HugetlbNumber   uint8
	HugetlbFlag     uint64
	HugetlbFlagWord int
}

func (p *Page) load(t types, major, minor int) error {
	page, err := t.structure("page")
	if err != nil {
		return err
	}
	p.Size = page.size()
	if p.Size%8 != 0 || p.Size > maxPageSize {
		return fmt.Errorf("struct page has %d bytes", p.Size)
	}
	p.Shift = -1
	if p.Size&(p.Size-1) == 0 {
		p.Shift = bits.TrailingZeros(uint(p.Size))
	}
	if err := (offsets{
		{&p.Flags, "flags", 8}, {&p.Mapping, "mapping", 8}, {&p.Private, "private", 8},
		{&p.Mapcount, "_mapcount", 4}, {&p.Refcount, "_refcount", 4},
	}).read(page); err != nil {
		return err
	}
	err = offsets{{&p.Head, "compound_head", 8}}.read(page)
	if errors.Is(err, errNoMember) {
		p.HeadMask = true
		err = offsets{{&p.Head, "compound_info", 8}}.read(page)
	}
	if err != nil {
		return err
	}
	if err := p.Flag.load(t); err != nil {
		return err
	}
	if err := p.Type.load(t, major, minor); err != nil {
		return err
	}
	return p.Large.load(t, page, p.Type)
}

func (f *Flags) load(t types) error {
	for _, flag := range []struct {
		mask     *uint64
		name     string
		required bool
	}{
		{&f.Locked, "PG_locked", true},
		{&f.Uptodate, "PG_uptodate", true},
		{&f.Dirty, "PG_dirty", true},
		{&f.LRU, "PG_lru", true},
		{&f.Slab, "PG_slab", false}, // a type since Linux 6.10
		{&f.Reserved, "PG_reserved", true},
		{&f.Writeback, "PG_writeback", true},
		{&f.Head, "PG_head", true},
		{&f.SwapBacked, "PG_swapbacked", true},
		{&f.SwapCache, "PG_swapcache", true},
		{&f.Active, "PG_active", false},
		{&f.Workingset, "PG_workingset", false},
	} {
		bit, err := t.enum("pageflags", flag.name)
		if errors.Is(err, errNoMember) && !flag.required {
			continue
		}
		if err != nil {
			return err
		}
		if bit > 63 {
			return fmt.Errorf("flag %s is bit %d", flag.name, bit)
		}
		*flag.mask = 1 << bit
	}
	return nil
}
