// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Sources of an instruction that names a map by its index in fd_array: BPF_PSEUDO_MAP_IDX and
// BPF_PSEUDO_MAP_IDX_VALUE of linux/bpf.h.
const (
	mapByIndex      = asm.R5
	mapValueByIndex = asm.R6
)

// code is a program's instructions, the same on each machine: a map is an index there, and not a
// descriptor, and relocations against the kernel's types are still to be done.
type code struct {
	bytes     []byte            // little endian
	maps      []string          // by the index that stands for them
	functions map[string]uint32 // where each begins, in bytes
}

// link makes the code of a program. The program's own function comes first, then those that it
// uses, in the order in which package ebpf puts them. The maps that it uses are numbered by the
// order of their names.
func link(p *ebpf.ProgramSpec) (*code, error) {
	used := make(map[string]struct{})
	for _, ins := range p.Instructions {
		if ins.IsLoadFromMap() {
			used[ins.Reference()] = struct{}{}
		}
	}
	if _, ok := used[""]; ok {
		return nil, errors.New("link the program: it uses a map that is not its own")
	}
	c := &code{maps: slices.Sorted(maps.Keys(used)), functions: make(map[string]uint32)}
	insns := slices.Clone(p.Instructions)
	for iter := insns.Iterate(); iter.Next(); {
		if name := iter.Ins.Symbol(); name != "" {
			c.functions[name] = uint32(iter.Offset.Bytes())
		}
		if iter.Ins.IsLoadFromMap() {
			c.number(iter.Ins)
		}
	}
	var b bytes.Buffer
	if err := insns.Marshal(&b, binary.LittleEndian); err != nil {
		return nil, fmt.Errorf("link the program: %w", err)
	}
	c.bytes = b.Bytes()
	return c, nil
}

// number has an instruction name its map by the index. The upper half of the constant is an
// offset in the map's value.
func (c *code) number(ins *asm.Instruction) {
	ins.Constant = ins.Constant>>32<<32 | int64(slices.Index(c.maps, ins.Reference()))
	if ins.Src == asm.PseudoMapFD {
		ins.Src = mapByIndex
	} else {
		ins.Src = mapValueByIndex
	}
}
