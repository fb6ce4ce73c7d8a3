// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"errors"
	"fmt"
)

// load learns how the kernel marks types. Since Linux 6.12 (4ffca5a96678) the
// high byte of the word is a value of enum pagetype. Before, since 4.18, the high
// four bits say that the word is a type, and a bit that is 0 says which type
// (include/linux/page-flags.h). BTF does not have these bits. So they are only used
// for versions whose source was read.
func (p *Types) load(t types, major, minor int) error {
	if _, err := t.enum("pagetype", "PGTY_buddy"); err == nil {
		return p.loadValues(t)
	}
	if major != 6 || minor > 8 {
		return fmt.Errorf("no enum pagetype, and Linux %d.%d marks types in an unknown way",
			major, minor)
	}
	const (
		base    = 0xf0000000
		buddy   = 0x80
		offline = 0x100
		table   = 0x200
		guard   = 0x400
	)
	bit := func(b uint32) TypeMark { return TypeMark{base | b, base} }
	p.First, p.End = base, 1<<32-128 // -128 and above are mapcounts
	p.Offline, p.Table, p.Guard = bit(offline), bit(table), bit(guard)
	// A free block has no other type, so its whole word is known.
	p.Buddy = TypeMark{1<<32 - 1, 1<<32 - 1 - buddy}
	return nil
}

// loadValues reads the marks from enum pagetype.
func (p *Types) loadValues(t types) error {
	for _, mark := range []struct {
		mark     *TypeMark
		name     string
		required bool
	}{
		{&p.Buddy, "PGTY_buddy", true},
		{&p.Offline, "PGTY_offline", true},
		{&p.Table, "PGTY_table", true},
		{&p.Guard, "PGTY_guard", true},
		{&p.Hugetlb, "PGTY_hugetlb", true},
		{&p.Slab, "PGTY_slab", true},
		{&p.LargeKmalloc, "PGTY_large_kmalloc", false}, // since Linux 6.18
	} {
		value, err := t.enum("pagetype", mark.name)
		if errors.Is(err, errNoMember) && !mark.required {
			continue
		}
		if err != nil {
			return err
		}
		if value < 0x80 || value > 0xfe {
			return fmt.Errorf("type %s is %#x", mark.name, value)
		}
		// The owner of a page may use the low bits of the word.
		*mark.mark = TypeMark{0xff << 24, uint32(value) << 24}
	}
	// A free block has no owner, so its whole word is known (mm/page_alloc.c,
	// __SetPageBuddy).
	p.Buddy.Mask = 1<<32 - 1
	// High bytes from 0x80 to 0xfe are types; 0xff is a negative mapcount.
	p.First, p.End = 0x80<<24, 0xff<<24
	return nil
}

// IsType says whether a word is a type and not a mapcount. A page that is not
// mapped has mapcount -1, with all bits set.
func (p *Types) IsType(word uint32) bool { return word >= p.First && word < p.End }

// load learns the fields of compound pages.
func (l *Large) load(t types, page structure, marks Types) error {
	*l = Large{Order: -1, Mapcount: -1, Entire: -1, Destructor: -1}
	size := page.size()
	// In Linux 6.0 and 6.1 the fields are in struct page itself. Later they are in
	// struct folio, which overlays the first struct pages.
	if at, _, err := page.member("compound_order"); err == nil {
		l.Order = at
	}
	if at, _, err := page.member("compound_mapcount"); err == nil {
		l.Entire = at
	}
	if folio, err := t.structure("folio"); err == nil && folio.size() >= 2*size {
		second := func(name string) int {
			at, _, err := folio.member(name)
			if err != nil || at < size || at > 2*size-8 {
				return -1
			}
			return at - size
		}
		if l.Order < 0 {
			l.Order = second("_folio_order") // Linux 6.3 to 6.5
		}
		if l.Order < 0 {
			l.Order = second("_flags_1") // since Linux 6.6 (ebc1baf5c9b4)
			l.OrderInWord = l.Order >= 0
		}
		l.Mapcount = second("_large_mapcount") // since Linux 6.10
		if l.Entire < 0 {
			l.Entire = second("_entire_mapcount")
		}
	}
	if l.Order < 0 || l.Order >= size || l.Entire >= size-4 {
		return errors.New("the order of a compound page is nowhere")
	}
	if marks.Hugetlb.Mask != 0 {
		return nil
	}
	return l.loadHugetlb(t, page)
}

// loadHugetlb learns the mark of huge pages in kernels without a type for them.
func (l *Large) loadHugetlb(t types, page structure) error {
	number, err := t.enum("compound_dtor_id", "HUGETLB_PAGE_DTOR") // up to Linux 6.5
	if err == nil {
		at, _, err := page.member("compound_dtor")
		if err != nil {
			return err
		}
		if at >= page.size() {
			return errors.New("the destructor of a compound page is nowhere")
		}
		l.Destructor, l.HugetlbNumber = at, uint8(number)
		return nil
	}
	bit, err := t.enum("pageflags", "PG_hugetlb") // Linux 6.6 to 6.8
	if err != nil || bit > 63 {
		return fmt.Errorf("huge pages have no mark: %w", err)
	}
	l.HugetlbFlag = 1 << bit
	return l.wordOfFlags(page)
}

func (l *Large) wordOfFlags(page structure) error {
	return offsets{{&l.HugetlbFlagWord, "flags", 8}}.read(page)
}
