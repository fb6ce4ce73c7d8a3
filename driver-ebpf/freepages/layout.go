// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// How struct page marks a free block: page_type & mask == value. Since Linux 6.12 the value
// is in enum pagetype; these are for older kernels. From include/linux/page-flags.h.
const (
	buddyMask510, buddyValue510 = 0xf0000080, 0xf0000000 // v4.18 to v6.10
	buddyMask611, buddyValue611 = 0xc0000000, 0x80000000 // v6.11
)

// version611 is Linux 6.11 as LINUX_VERSION_CODE has it.
const version611 = 6<<16 | 11<<8

// findLayout returns the constants of a program that BTF does not have, by variable.
func findLayout(peek *kernel.Peek, version uint32) (map[string]uint64, error) {
	structPages, err := firstStructPage(peek)
	if err != nil {
		return nil, err
	}
	values := map[string]uint64{"vmemmap": structPages}
	if nodes, err := peek.Symbol("node_data"); err == nil {
		values["node_data"] = nodes
	} else if flat, err := peek.Symbol("contig_page_data"); err == nil {
		values["contig_page_data"] = flat
	} else {
		return nil, fmt.Errorf("find the memory nodes: neither node_data nor contig_page_data: %w",
			kernel.ErrNoSymbol)
	}
	if offsets, err := peek.Symbol("__per_cpu_offset"); err == nil {
		values["per_cpu_offset"] = offsets
	}
	values["buddy_mask"], values["buddy_value"] = buddyMask510, buddyValue510
	if version >= version611 {
		values["buddy_mask"], values["buddy_value"] = buddyMask611, buddyValue611
	}
	return values, nil
}

// setLayout sets the constants of the built-in program.
func setLayout(spec *ebpf.CollectionSpec, values map[string]uint64) error {
	for name, value := range values {
		v := spec.Variables[name]
		if v == nil {
			return fmt.Errorf("set %s: the program has no such variable", name)
		}
		var err error
		if v.Size() == 4 {
			err = v.Set(uint32(value))
		} else {
			err = v.Set(value)
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

func readPointer(peek *kernel.Peek, symbol string) (uint64, error) {
	addr, err := peek.Symbol(symbol)
	if err != nil {
		return 0, err
	}
	var value [8]byte
	if err := peek.Read(addr, value[:]); err != nil {
		return 0, fmt.Errorf("read %s: %w", symbol, err)
	}
	return binary.NativeEndian.Uint64(value[:]), nil
}

// orders returns the number of orders of the kernel's allocator.
func orders(types *btf.Spec) (int, error) {
	var zone *btf.Struct
	if err := types.TypeByName("zone", &zone); err != nil {
		return 0, fmt.Errorf("find struct zone: %w", err)
	}
	for _, member := range zone.Members {
		if member.Name != "free_area" {
			continue
		}
		if lists, ok := member.Type.(*btf.Array); ok {
			return int(lists.Nelems), nil
		}
	}
	return 0, errors.New("find the orders: struct zone has no array free_area")
}
