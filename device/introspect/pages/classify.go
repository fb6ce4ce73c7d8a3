// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"encoding/binary"

	"github.com/fbpp-project/fbpp/device/introspect/layout"
)

// The low bits of a page's mapping (include/linux/page-flags.h,
// FOLIO_MAPPING_ANON and FOLIO_MAPPING_ANON_KSM).
const (
	mappingAnon = 1
	mappingKSM  = 3
	mappingBits = 3
)

// Classifier reads struct pages of one kernel. It is safe for concurrent use.
type Classifier struct {
	page *layout.Page
}

// NewClassifier returns a classifier for a layout. The layout must not change
// while the classifier is in use.
func NewClassifier(page *layout.Page) *Classifier { return &Classifier{page} }

func word32(p []byte, at int) uint32 { return binary.LittleEndian.Uint32(p[at:]) }
func word64(p []byte, at int) uint64 { return binary.LittleEndian.Uint64(p[at:]) }

// Flags returns the flags of a struct page.
func (c *Classifier) Flags(p []byte) uint64 { return word64(p, c.page.Flags) }

// FreeOrder says whether a page is marked as the first of a free block, and the
// block's order. The order is not checked: it may be any number.
func (c *Classifier) FreeOrder(p []byte) (order uint64, free bool) {
	if !c.page.Type.Buddy.Match(word32(p, c.page.Mapcount)) {
		return 0, false
	}
	return word64(p, c.page.Private), true
}

// Unused says whether nobody has a reference to a page, and it has no type. Such a page may be
// free, but it is also a tail, or a page on its way.
func (c *Classifier) Unused(p []byte) bool {
	return word32(p, c.page.Refcount) == 0 && !c.page.Type.IsType(word32(p, c.page.Mapcount))
}

// IsHead says whether a page is marked as the head of a compound page. Some tails
// have the mark, too: see [Classifier.Tail].
func (c *Classifier) IsHead(p []byte) bool { return word64(p, c.page.Flags)&c.page.Flag.Head != 0 }

// Head says where the head of a tail page is, by one of its fields.
type Head struct {
	Address uint64 // virtual address of the head's struct page, if Order is 0
	Order   int    // the head's frame number is the tail's, aligned to 1<<Order
}

// maxOrder bounds compound pages: 1 GiB on x86, 16 GiB elsewhere.
const maxOrder = 22

// Tail says whether a page is a tail of a compound page, and where the head is.
//
// With the kernel's vmemmap optimisation for huge pages, many tails share the
// struct pages of the head's page of the memory map. Before Linux 7.1, one tail in
// 64 has the head's own struct page, and so looks like a head. To tell it from the
// head, look at the next struct page: it is a tail, and names the true head.
func (c *Classifier) Tail(p []byte) (Head, bool) {
	info := word64(p, c.page.Head)
	if info&1 == 0 {
		return Head{}, false
	}
	info &^= 1
	if c.page.HeadMask && c.page.Shift >= 0 {
		// A mask has ones down to some bit. No address of a struct page looks so.
		if low := ^info; low&(low+1) == 0 {
			for order := 1; order <= maxOrder; order++ {
				if low == 1<<(order+c.page.Shift)-1 {
					return Head{Order: order}, true
				}
			}
			return Head{}, false
		}
	}
	return Head{Address: info}, true
}

// Large classifies a compound page by the struct pages of its head and of the
// page after it. The attributes hold for all of its pages. A page for which
// [Classifier.PartMapped] is true is also mapped.
func (c *Classifier) Large(head, second []byte) Page {
	l := &c.page.Large
	if l.Destructor >= 0 && second[l.Destructor] == l.HugetlbNumber ||
		l.HugetlbFlag != 0 && word64(second, l.HugetlbFlagWord)&l.HugetlbFlag != 0 {
		return Page{Class: Hugetlb, Attr: c.largeMapped(second)}
	}
	page := c.Single(head)
	switch page.Class {
	case Hugetlb:
		page.Attr = c.largeMapped(second)
	case Anonymous, File, Shmem, KSM:
		page.Attr = page.Attr&^Mapped | c.largeMapped(second)
		if page.Attr&Mapped != 0 {
			page.Attr &^= Clean
		}
	}
	return page
}

func (c *Classifier) largeMapped(second []byte) Attr {
	l := &c.page.Large
	for _, at := range []int{l.Mapcount, l.Entire} {
		if at >= 0 && int32(word32(second, at)) >= 0 {
			return Mapped
		}
	}
	return 0
}

// PartMapped says whether one page of a compound page is mapped by itself. It is
// false for kernels that count such mappings for the compound page as a whole: see
// [Classifier.Large].
func (c *Classifier) PartMapped(p []byte) bool {
	return c.page.Large.Mapcount < 0 && int32(word32(p, c.page.Mapcount)) >= 0
}

// LargeOrder returns the order of a compound page from the struct page after its
// head. The order is not checked.
func (c *Classifier) LargeOrder(second []byte) int { return int(second[c.page.Large.Order]) }

// Single classifies a page by its own struct page. A page of a free block is
// Unknown: call [Classifier.FreeOrder] first.
func (c *Classifier) Single(p []byte) Page {
	var (
		flags = word64(p, c.page.Flags)
		word  = word32(p, c.page.Mapcount)
		f     = &c.page.Flag
	)
	switch {
	case flags&f.Reserved != 0:
		return Page{Class: Reserved}
	case c.page.Type.IsType(word):
		return Page{Class: c.typed(word)}
	case flags&f.Slab != 0: // its fields overlay the mapping
		return Page{Class: Slab}
	}
	return c.owned(p, flags, word)
}

// typed returns the class of a page with a type.
func (c *Classifier) typed(word uint32) Class {
	t := &c.page.Type
	switch {
	case t.Table.Match(word):
		return PageTable
	case t.Slab.Match(word):
		return Slab
	case t.Hugetlb.Match(word):
		return Hugetlb
	case t.Offline.Match(word):
		return Offline
	case t.LargeKmalloc.Match(word), t.Guard.Match(word):
		return Kernel
	}
	return Unknown
}

// owned classifies a page without a type by its field mapping.
func (c *Classifier) owned(p []byte, flags uint64, word uint32) Page {
	var (
		f       = &c.page.Flag
		mapping = word64(p, c.page.Mapping)
		page    Page
	)
	swapCache := flags&f.SwapBacked != 0 && flags&f.SwapCache != 0
	switch {
	case mapping&mappingBits == mappingAnon:
		page.Class = Anonymous
	case mapping&mappingBits == mappingKSM:
		page.Class = KSM
	case mapping == 0 && swapCache: // read from the swap device, and not in use yet
		page.Class = Anonymous
	case mapping == 0 && word32(p, c.page.Refcount) == 0:
		return Page{Class: Unknown}
	case mapping == 0 || mapping&mappingBits != 0:
		return Page{Class: Kernel}
	case flags&f.LRU == 0: // a driver may use the field for its own data
		return Page{Class: Unknown}
	case flags&f.SwapBacked != 0:
		page.Class = Shmem
	default:
		page.Class = File
	}
	if int32(word) >= 0 {
		page.Attr |= Mapped
	}
	if flags&f.Dirty != 0 {
		page.Attr |= Dirty
	}
	if flags&f.Writeback != 0 {
		page.Attr |= Writeback
	}
	if swapCache {
		page.Attr |= SwapCache
	}
	if page == (Page{Class: File}) && flags&(f.Uptodate|f.Locked) == f.Uptodate {
		page.Attr = Clean
	}
	// On the active list, or once there (mm/workingset.c). With generations, pages on a
	// list have only the latter flag.
	if flags&(f.Active|f.Workingset) != 0 {
		page.Attr |= Active
	}
	return page
}
