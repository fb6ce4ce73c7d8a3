// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/layout"
)

// memMap is where the kernel's struct pages are: one array by page frame number,
// of which parts exist (SPARSEMEM_VMEMMAP).
type memMap struct {
	base         uint64 // address of the struct page of frame 0
	sectionPages uint64 // pages of a section
	sections     uint64 // that there can be
	perRoot      uint64 // sections whose descriptions share a page
}

// Bits of section_mem_map (include/linux/mmzone.h). The array is there for
// sections that are online only.
const (
	sectionHasMap = 1 << 1
	sectionOnline = 1 << 2
	sectionFlags  = 1<<6 - 1
)

const pageShift = 12

// openMemMap reads how the kernel divides its memory.
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

// address returns the address of a struct page.
func (k *Kernel) pageAddress(pfn uint64) uint64 {
	return k.memMap.base + pfn*uint64(k.layout.Page.Size)
}

// section is a part of memory whose struct pages are there.
type section struct {
	start, end uint64 // page frame numbers
}

// sections returns the sections that have RAM and struct pages, in order. What
// the regions do not have, the guest cannot claim.
func (k *Kernel) sections() ([]section, error) {
	table, err := k.variable(symbolSections)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, layout.ErrUnknown)
	}
	var found []section
	next := uint64(0) // section number behind the last that was looked at
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

// hasMemMap reads the description of a section: mem_section is an array of
// pages of them (SPARSEMEM_EXTREME).
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
