// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
)

// Sizes of struct bpf_func_info and struct bpf_core_relo of linux/bpf.h.
const (
	functionSize   = 8
	relocationSize = 16
)

// Where the header of .BTF.ext has these tables, and its size with both.
const (
	functionTable   = 8
	relocationTable = 24
	extHeader       = 32
)

// about is what the kernel is told of the code beside it.
type about struct {
	types       []byte // BTF
	functions   []byte // of struct bpf_func_info
	relocations []byte // of struct bpf_core_relo
}

// describe reads what an ELF file says of the code.
func (c *code) describe(file []byte) (a about, err error) {
	o, err := readObject(file)
	if err != nil {
		return a, fmt.Errorf("read the object: %w", err)
	}
	t, err := readTypes(o)
	if err != nil {
		return a, fmt.Errorf("read the object: %w", err)
	}
	functions, err := c.records(o, t, functionTable, functionSize)
	if err != nil {
		return a, fmt.Errorf("read the object's functions: %w", err)
	}
	for _, r := range functions { // the kernel counts instructions here, and bytes below
		put32(r, get32(r)/8)
	}
	relocations, err := c.records(o, t, relocationTable, relocationSize)
	if err != nil {
		return a, fmt.Errorf("read the object's relocations: %w", err)
	}
	return about{t.data, slices.Concat(functions...), slices.Concat(relocations...)}, nil
}

// records returns a table of .BTF.ext for the code. A record begins with the place of an
// instruction in its section. That becomes its place in the code. What is about functions that are
// not in the code is left out.
func (c *code) records(o *object, t *types, at, size int) (all [][]byte, err error) {
	data, err := o.section(".BTF.ext")
	if err != nil {
		return nil, err
	}
	if len(data) < extHeader || binary.LittleEndian.Uint16(data) != btfMagic ||
		get32(data[4:]) < extHeader {
		return nil, errTypes
	}
	rest, ok := table(data, at)
	switch {
	case ok && len(rest) == 0:
		return nil, nil
	case !ok || len(rest) < 4 || get32(rest) != uint32(size):
		return nil, errTypes
	}
	for rest = rest[4:]; len(rest) > 0; {
		if len(rest) < 8 {
			return nil, errTypes
		}
		section, length := t.text(get32(rest)), uint64(get32(rest[4:]))*uint64(size)
		rest = rest[8:]
		if length > uint64(len(rest)) {
			return nil, errTypes
		}
		moves := c.moves(o, section)
		for r := range slices.Chunk(rest[:length], size) {
			if to, ok := moves.find(get32(r)); ok {
				r = slices.Clone(r)
				put32(r, to)
				all = append(all, r)
			}
		}
		rest = rest[length:]
	}
	slices.SortStableFunc(all, func(a, b []byte) int { return cmp.Compare(get32(a), get32(b)) })
	return all, nil
}

// move says where a function was in its section, and where it is in the code, in bytes.
type move struct{ from, size, to uint32 }

type moves []move

// moves returns where the functions of a section are in the code.
func (c *code) moves(o *object, section string) (all moves) {
	for _, s := range o.symbols {
		to, ok := c.functions[s.Name]
		if ok && elf.ST_TYPE(s.Info) == elf.STT_FUNC && int(s.Section) < len(o.file.Sections) &&
			o.file.Sections[s.Section].Name == section {
			all = append(all, move{uint32(s.Value), uint32(s.Size), to})
		}
	}
	return all
}

// find returns where an instruction of the section is in the code.
func (all moves) find(at uint32) (to uint32, ok bool) {
	for _, m := range all {
		if at >= m.from && at-m.from < m.size {
			return at - m.from + m.to, true
		}
	}
	return 0, false
}
