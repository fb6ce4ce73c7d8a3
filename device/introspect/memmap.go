// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/layout"
)

// memMap says where the kernel's struct pages are: in one virtual array by page
// frame number, of which only parts are mapped (SPARSEMEM_VMEMMAP).
type memMap struct {
	base         uint64 // address of the struct page of frame 0
	sectionPages uint64 // pages in a section
	sections     uint64 // largest possible number of sections
	perRoot      uint64 // number of struct mem_section in a page
}

// Bits of section_mem_map (include/linux/mmzone.h). Only sections that are online
// have struct pages that can be read.
const (
	sectionHasMap = 1 << 1
	sectionOnline = 1 << 2
	sectionFlags  = 1<<6 - 1
)

const pageShift = 12

// openMemMap reads how the kernel divides memory into sections.
func (k *Kernel) openMemMap() error {
	info := k.note.Info
	size, err := info.PageSize()
	if err != nil || size != 1<<pageShift {
		return fmt.Errorf("pages of %d bytes (%v): %w", size, err, layout.ErrUnknown)
	}
	sectionBits, err := info.Number("SECTION_SIZE_BITS")
	if err != nil {
		return fmt.Errorf("%w (no SPARSEMEM?): %w", err, layout.ErrUnknown)
	}
	physBits, err := info.Number("MAX_PHYSMEM_BITS")
	if err != nil {
		return fmt.Errorf("%w: %w", err, layout.ErrUnknown)
	}
	if sectionBits < 24 || sectionBits > 34 || physBits < sectionBits || physBits > 52 {
		return fmt.Errorf("sections of %d bits in %d: %w", sectionBits, physBits, layout.ErrUnknown)
	}
	base, err := k.variable(symbolVmemmap)
	if err != nil {
		return fmt.Errorf("%w (no SPARSEMEM_VMEMMAP?): %w", err, layout.ErrUnknown)
	}
	k.memMap = memMap{
		base:         base,
		sectionPages: 1 << (sectionBits - pageShift),
		sections:     1 << (physBits - sectionBits),
		perRoot:      (1 << pageShift) / uint64(k.layout.Section.Size),
	}
	return nil
}

// pageAddress returns the virtual address of a frame's struct page.
func (k *Kernel) pageAddress(pfn uint64) uint64 {
	return k.memMap.base + pfn*uint64(k.layout.Page.Size)
}

// section is a section of memory that has struct pages.
type section struct {
	start, end uint64 // page frame numbers
}

// sections returns the sections that have RAM and struct pages, in order. Only
// sections in a region of memory are looked up, which bounds the work.
func (k *Kernel) sections() ([]section, error) {
	table, err := k.variable(symbolSections)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, layout.ErrUnknown)
	}
	var found []section
	next := uint64(0) // number of the next section to look up
	for _, r := range k.mem.Regions() {
		first := r.GPA >> pageShift / k.memMap.sectionPages
		last := (r.End() - 1) >> pageShift / k.memMap.sectionPages
		for n := max(first, next); n <= last && n < k.memMap.sections; n++ {
			ok, err := k.hasMemMap(table, n)
			if err != nil {
				return nil, err
			}
			if ok {
				first := n * k.memMap.sectionPages
				found = append(found, section{first, first + k.memMap.sectionPages})
			}
		}
		next = max(next, last+1)
	}
	return found, nil
}

// hasMemMap says whether section n has struct pages. mem_section is an array of
// pointers to pages of struct mem_section (SPARSEMEM_EXTREME).
func (k *Kernel) hasMemMap(table, n uint64) (bool, error) {
	root, err := k.space.Uint64(table + n/k.memMap.perRoot*8)
	if err != nil || root == 0 {
		return false, err
	}
	var word [8]byte
	at := root + n%k.memMap.perRoot*uint64(k.layout.Section.Size) + uint64(k.layout.Section.MemMap)
	if err := k.space.Read(word[:], at); err != nil {
		return false, fmt.Errorf("read section %d: %w", n, err)
	}
	value := binary.LittleEndian.Uint64(word[:])
	if value&sectionHasMap == 0 || value&sectionOnline == 0 {
		return false, nil
	}
	if value&^sectionFlags != k.memMap.base {
		return false, fmt.Errorf("section %d has its struct pages elsewhere "+
			"(no SPARSEMEM_VMEMMAP?): %w", n, layout.ErrUnknown)
	}
	return true, nil
}
