// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/paging"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// lowMemory is where the trampoline is: a processor starts in real mode, which
// reaches no further. Linux gives none of it to programs (reserve_real_mode
// and setup_bios_corruption_check; since v5.13 all of it is reserved).
const lowMemory = 1 << 20

// The trampoline's top page table has the kernel's entries of the upper half,
// or the last of them at least (setup_real_mode).
const (
	lastEntry = 511
	frameBits = (1<<52 - 1) &^ (paging.PageSize - 1) // an entry without its flags
)

// anchors are what low memory says of the kernel's page tables.
type anchors struct {
	tables map[uint64]bool // that the last entry of any page refers to
	roots  []uint64        // a page for each of them: it may be the trampoline's top table
}

// readAnchors looks through low memory.
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

// check tells whether the page tables with a root are those of the trampoline.
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
