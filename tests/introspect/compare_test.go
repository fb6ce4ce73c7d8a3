// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// Bits of /proc/kpageflags (Linux: include/uapi/linux/kernel-page-flags.h).
const (
	kpfDirty      = 1 << 4
	kpfLRU        = 1 << 5
	kpfSlab       = 1 << 7
	kpfWriteback  = 1 << 8
	kpfBuddy      = 1 << 10
	kpfMapped     = 1 << 11
	kpfAnon       = 1 << 12
	kpfSwapCache  = 1 << 13
	kpfSwapBacked = 1 << 14
	kpfTail       = 1 << 16
	kpfHuge       = 1 << 17
	kpfNoPage     = 1 << 20
	kpfKSM        = 1 << 21
	kpfOffline    = 1 << 23
	kpfPageTable  = 1 << 26
	kpfReserved   = 1 << 32
)

// other stands for the classes that kpageflags does not tell apart.
const other = pages.Kernel

// expect returns the class and attributes of a page by its flags. Before Linux 6.9 the flags
// of a tail page say little: properties of the whole folio are then taken from its head.
func expect(flags, head uint64) pages.Page {
	if flags&kpfTail != 0 {
		flags |= head & (kpfLRU | kpfDirty | kpfWriteback | kpfSwapCache | kpfSwapBacked |
			kpfSlab | kpfReserved)
	}
	p := pages.Page{Class: other}
	switch {
	case flags&kpfBuddy != 0:
		return pages.Page{Class: pages.Free}
	case flags&kpfReserved != 0:
		return pages.Page{Class: pages.Reserved}
	case flags&kpfSlab != 0:
		return pages.Page{Class: pages.Slab}
	case flags&kpfPageTable != 0:
		return pages.Page{Class: pages.PageTable}
	case flags&kpfOffline != 0:
		return pages.Page{Class: pages.Offline}
	case flags&kpfHuge != 0:
		p.Class = pages.Hugetlb
	case flags&kpfKSM != 0:
		p.Class = pages.KSM
	case flags&kpfAnon != 0, flags&kpfSwapCache != 0 && flags&kpfSwapBacked != 0:
		p.Class = pages.Anonymous
	case flags&kpfLRU != 0 && flags&kpfSwapBacked != 0:
		p.Class = pages.Shmem
	case flags&kpfLRU != 0:
		p.Class = pages.File
	default:
		return p
	}
	if flags&kpfMapped != 0 {
		p.Attr |= pages.Mapped
	}
	if p.Class == pages.Hugetlb {
		return p
	}
	if flags&kpfDirty != 0 {
		p.Attr |= pages.Dirty
	}
	if flags&kpfWriteback != 0 {
		p.Attr |= pages.Writeback
	}
	if flags&kpfSwapCache != 0 && flags&kpfSwapBacked != 0 {
		p.Attr |= pages.SwapCache
	}
	return p
}

// compareAttrs are the attributes that kpageflags tells.
const compareAttrs = pages.Mapped | pages.Dirty | pages.Writeback | pages.SwapCache

// pair is the guest's and the host's view of one page.
type pair struct{ guest, host pages.Page }

// comparison counts pages by what both said.
type comparison struct {
	pairs    map[pair]int
	examples map[pair][]uint64 // frames
	pages    int
	unquiet  int // pages that changed between the host's two looks
	unseen   int // pages that the host did not count, or the guest does not know
}

// compare compares page by page. It leaves out pages that changed meanwhile: those that
// differ between the host's view before and after the guest's, and those whose flags differ
// between the guest's two reads. Some pages always change: the kernel drains per-CPU lists
// and migrates pages. A fault of the host's code is found, because it is the same both times.
//
// Linux 6.12 reports every anonymous page as merged (KSM), because stable_page_flags in
// fs/proc/page.c tests for either of two bits instead of both. With allMerged the two
// classes count as one.
func compare(v *view, seen map[uint64]pages.Page, allMerged bool) *comparison {
	first, second := v.files["kpageflags"], v.files["kpageflags2"]
	c := &comparison{pairs: make(map[pair]int), examples: make(map[pair][]uint64)}
	head := uint64(0)
	for pfn := uint64(0); int(pfn+1)*8 <= len(first); pfn++ {
		flags := binary.LittleEndian.Uint64(first[8*pfn:])
		if flags&kpfTail == 0 {
			head = flags
		}
		host, ok := seen[pfn]
		if !ok || flags&kpfNoPage != 0 {
			c.unseen++
			continue
		}
		if flags != binary.LittleEndian.Uint64(second[8*pfn:]) || v.before[pfn] != host {
			c.unquiet++
			continue
		}
		if host.Class == pages.Unknown {
			host.Class = other
		}
		host.Attr &= compareAttrs
		p := pair{expect(flags, head), host}
		if allMerged {
			p.guest.Class, p.host.Class = withoutKSM(p.guest.Class), withoutKSM(p.host.Class)
		}
		c.pairs[p]++
		c.pages++
		if len(c.examples[p]) < 8 {
			c.examples[p] = append(c.examples[p], pfn)
		}
	}
	return c
}

func withoutKSM(c pages.Class) pages.Class {
	if c == pages.KSM {
		return pages.Anonymous
	}
	return c
}

// differing returns how many pages differ in the property that by returns.
func (c *comparison) differing(by func(pages.Page) any) (n int) {
	for p, count := range c.pairs {
		if by(p.guest) != by(p.host) {
			n += count
		}
	}
	return n
}

// byClass and byAll are the properties to compare.
func byClass(p pages.Page) any { return p.Class }
func byAll(p pages.Page) any   { return p }

// String prints what agrees and what does not.
func (c *comparison) String() string {
	var lines []string
	for p, count := range c.pairs {
		mark, where := " ", ""
		if p.guest != p.host {
			mark, where = "!", fmt.Sprintf("%x", c.examples[p])
		}
		lines = append(lines, fmt.Sprintf("%s %-10v %04b  %-10v %04b %8d %s", mark,
			p.guest.Class, p.guest.Attr, p.host.Class, p.host.Attr, count, where))
	}
	slices.Sort(lines)
	return fmt.Sprintf(
		"%d pages, %d unquiet, %d unseen\n%s",
		c.pages,
		c.unquiet,
		c.unseen,
		strings.Join(lines, "\n"),
	)
}
