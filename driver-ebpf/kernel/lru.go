// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/cilium/ebpf/btf"
)

// LRU returns what a program has to know to find a page's generation in the page's flags, by the
// names of its variables: node_shift, generation_shift and generations. It fails on a kernel
// without the multi-generational LRU.
//
// Where the fields of the flags lie is in include/linux/page-flags-layout.h. From the highest bit
// down they are the node, the zone, the processor that has used the page last, and the generation.
// That is so with SPARSEMEM_VMEMMAP and without tags of KASAN.
func LRU(types *btf.Spec) (map[string]uint64, error) {
	nodes, zones, err := nodesAndZones(types)
	if err != nil {
		return nil, err
	}
	gens, err := generations(types)
	if err != nil {
		return nil, fmt.Errorf("find the generations: %w", err)
	}
	cpu, err := cpuBits(types)
	if err != nil {
		return nil, err
	}
	node := 64 - log2(nodes)
	// A zone has 1, 2 or 3 bits. The generation is one of gens, or none.
	shift := node - max(1, log2(zones)) - cpu - log2(gens+1)
	if shift < 0 || gens < 2 || gens > 7 {
		return nil, fmt.Errorf("find the generations: %d of them at bit %d", gens, shift)
	}
	return map[string]uint64{
		"node_shift": uint64(node), "generation_shift": uint64(shift), "generations": uint64(gens),
	}, nil
}

// log2 returns how many bits count to n, which is not 0.
func log2(n int) int { return bits.Len(uint(n - 1)) }

// nodesAndZones returns for how many nodes the kernel is made, and how many kinds of zones it has.
func nodesAndZones(types *btf.Spec) (nodes, zones int, err error) {
	if zones, err = elements(types, "pglist_data", "node_zones"); err != nil {
		return 0, 0, fmt.Errorf("find the zones: %w", err)
	}
	// A list of all zones of all nodes, and an end (include/linux/mmzone.h, struct zonelist).
	all, err := elements(types, "zonelist", "_zonerefs")
	if err != nil {
		return 0, 0, fmt.Errorf("find the nodes: %w", err)
	}
	if nodes = (all - 1) / zones; nodes*zones != all-1 || nodes < 1 || nodes > 1<<12 {
		return 0, 0, fmt.Errorf("find the nodes: a list of %d zones for %d kinds", all, zones)
	}
	return nodes, zones, nil
}

// generations returns how many generations a list has (MAX_NR_GENS): one time for each.
func generations(types *btf.Spec) (int, error) {
	lists, err := structure(types, "lruvec")
	if err != nil {
		return 0, err
	}
	of, ok := member(lists.Members, "lrugen").(*btf.Struct)
	if !ok {
		return 0, errors.New("the kernel has no multi-generational LRU")
	}
	return length(of, "timestamps")
}

// cpuBits returns how many bits of a page's flags name the processor and the process that have used
// the page last (LAST_CPUPID_WIDTH).
func cpuBits(types *btf.Spec) (int, error) {
	page, err := structure(types, "page")
	if err != nil {
		return 0, err
	}
	task, err := structure(types, "task_struct")
	if err != nil {
		return 0, err
	}
	if has(page, "_last_cpupid") || !has(task, "numa_faults") {
		return 0, nil // there was no room in the flags, or nobody wants to know
	}
	words, err := elements(types, "cpumask", "bits")
	if err != nil {
		return 0, fmt.Errorf("find the processors: %w", err)
	}
	const pidBits = 8 // LAST__PID_SHIFT
	return pidBits + log2(words*64), nil
}

func structure(types *btf.Spec, name string) (*btf.Struct, error) {
	var s *btf.Struct
	if err := types.TypeByName(name, &s); err != nil {
		return nil, fmt.Errorf("find struct %s: %w", name, err)
	}
	return s, nil
}

// has says whether a struct, or a struct or union without a name in it, has a member.
func has(s *btf.Struct, name string) bool { return member(s.Members, name) != nil }

func member(all []btf.Member, name string) btf.Type {
	for _, m := range all {
		if m.Name == name {
			return btf.UnderlyingType(m.Type)
		}
		if m.Name != "" {
			continue
		}
		var found btf.Type
		switch inner := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			found = member(inner.Members, name)
		case *btf.Union:
			found = member(inner.Members, name)
		}
		if found != nil {
			return found
		}
	}
	return nil
}

// elements returns how many elements an array has that is a member of a struct.
func elements(types *btf.Spec, name, field string) (int, error) {
	s, err := structure(types, name)
	if err != nil {
		return 0, err
	}
	return length(s, field)
}

func length(s *btf.Struct, field string) (int, error) {
	array, ok := member(s.Members, field).(*btf.Array)
	if !ok {
		return 0, fmt.Errorf("struct %s has no array %s", s.Name, field)
	}
	return int(array.Nelems), nil
}
