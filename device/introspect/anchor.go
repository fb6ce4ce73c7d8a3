// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/paging"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// lowMemory bounds where the trampoline can be: a processor starts in real mode,
// which cannot address more. Linux gives none of it to programs (reserve_real_mode
// and setup_bios_corruption_check; since v5.13 all of it is reserved).
const lowMemory = 1 << 20

// The trampoline's top page table has copies of the kernel's entries for the upper
// half of addresses, or at least of the last one (setup_real_mode).
const (
	lastEntry = 511
	frameBits = (1<<52 - 1) &^ (paging.PageSize - 1) // an entry without its flags
)

// anchors are the page tables that low memory refers to. One of its pages is the
// trampoline's top table; which one is not known.
type anchors struct {
	tables map[uint64]bool // tables that the last entry of any page refers to
	roots  []uint64        // for each of them, the address of one such page
}

// readAnchors reads low memory.
func readAnchors(mem *physmem.Memory) (*anchors, error) {
	a := &anchors{tables: make(map[uint64]bool)}
	var page [paging.PageSize]byte
	for gpa := uint64(0); gpa < lowMemory; gpa += paging.PageSize {
		if !mem.Contains(gpa, paging.PageSize) {
			continue // the hole for video memory and firmware
		}
		if err := mem.Read(page[:], gpa); err != nil {
			return nil, err
		}
		entry := binary.LittleEndian.Uint64(page[lastEntry*8:])
		if entry&1 == 0 || a.tables[entry&frameBits] {
			continue
		}
		a.tables[entry&frameBits] = true
		a.roots = append(a.roots, gpa)
	}
	return a, nil
}

// check returns an error unless the trampoline shares the last entry of the top
// page table at root.
func (a *anchors) check(mem *physmem.Memory, root uint64) error {
	var word [8]byte
	if err := mem.Read(word[:], root+lastEntry*8); err != nil {
		return fmt.Errorf("read the top page table: %w: %w", err, ErrUnproven)
	}
	entry := binary.LittleEndian.Uint64(word[:])
	if entry&1 == 0 || !a.tables[entry&frameBits] {
		return fmt.Errorf("the trampoline has other page tables: %w", ErrUnproven)
	}
	return nil
}
