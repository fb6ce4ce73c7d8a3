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

// setLayout sets the program's constants that BTF does not have.
func setLayout(spec *ebpf.CollectionSpec, peek *kernel.Peek, version uint32) error {
	structPages, err := firstStructPage(peek)
	if err != nil {
		return err
	}
	values := map[string]any{"vmemmap": structPages}
	if nodes, err := peek.Symbol("node_data"); err == nil {
		values["node_data"] = nodes
	} else if flat, err := peek.Symbol("contig_page_data"); err == nil {
		values["contig_page_data"] = flat
	} else {
		return fmt.Errorf("find the memory nodes: neither node_data nor contig_page_data: %w",
			kernel.ErrNoSymbol)
	}
	if offsets, err := peek.Symbol("__per_cpu_offset"); err == nil {
		values["per_cpu_offset"] = offsets
	}
	values["buddy_mask"], values["buddy_value"] = uint32(buddyMask510), uint32(buddyValue510)
	if version >= version611 {
		values["buddy_mask"], values["buddy_value"] = uint32(buddyMask611), uint32(buddyValue611)
	}
	for name, value := range values {
		v := spec.Variables[name]
		if v == nil {
			return fmt.Errorf("set %s: the program has no such variable", name)
		}
		if err := v.Set(value); err != nil {
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
