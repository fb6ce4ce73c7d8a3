// SPDX-License-Identifier: Apache-2.0

package kallsyms

import (
	"encoding/binary"
	"fmt"
)

// addressing computes the address of symbol i from the offset in the table.
type addressing func(t *Table, i int) uint64

// offset returns the entry of kallsyms_offsets for symbol i.
func (t *Table) offset(i int) int32 { return int32(binary.LittleEndian.Uint32(t.offsets[4*i:])) }

// The ways in which kernels store addresses.
var addressings = []struct {
	name    string
	based   bool // uses kallsyms_relative_base
	address addressing
}{
	// v4.6 to v6.15 with CONFIG_KALLSYMS_ABSOLUTE_PERCPU, as on x86 with SMP.
	{"below the base, or absolute", true, func(t *Table, i int) uint64 {
		if offset := t.offset(i); offset < 0 {
			return t.base - 1 - uint64(int64(offset))
		}
		return uint64(t.offset(i))
	}},
	// v4.6 to v6.19 otherwise.
	{"above the base", true, func(t *Table, i int) uint64 {
		return t.base + uint64(uint32(t.offset(i)))
	}},
	// Since v7.0 (a081b5789255).
	{"relative to its place", false, func(t *Table, i int) uint64 {
		return t.at + uint64(4*i) + uint64(int64(t.offset(i)))
	}},
}

// minWitnesses is how many witnesses the table must have.
const minWitnesses = 2

// chooseAddressing chooses the way to store addresses by which all witnesses in
// the table have the address that the note gives.
func (t *Table) chooseAddressing(note Note, witnesses []string) error {
	want := make(map[string]uint64)
	for _, name := range witnesses {
		if address, err := note.Symbol(name); err == nil {
			want[name] = address
		}
	}
	indices := make(map[string]int)
	t.each(func(i int, name []byte) {
		if _, ok := want[string(name)]; ok {
			indices[string(name)] = i
		}
	})
	if len(indices) < minWitnesses {
		return fmt.Errorf("only %d of the symbols %q are in the table (no KALLSYMS_ALL?)",
			len(indices), witnesses)
	}
	for _, a := range addressings {
		if a.based != t.based {
			continue
		}
		agree := 0
		for name, i := range indices {
			if a.address(t, i) == want[name] {
				agree++
			}
		}
		if agree == len(indices) {
			t.address = a.address
			return nil
		}
	}
	return fmt.Errorf("no known way to store addresses agrees with VMCOREINFO")
}
