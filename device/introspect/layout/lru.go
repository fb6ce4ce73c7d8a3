// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"fmt"
	"math/bits"

	"github.com/cilium/ebpf/btf"
)

// LRU is how the kernel notes which pages were used lately, in generations
// (CONFIG_LRU_GEN, mm/vmscan.c). A kernel without generations, or whose types are
// not as expected, has Count 0: then only the flags of pages tell.
type LRU struct {
	Count int // of generations, MAX_NR_GENS
	Bits  int // of a page's flags that hold its generation plus one; 0 is none
	// Below is how many bits of a page's flags lie between these and the zone:
	// which processor used the page last (include/linux/page-flags-layout.h).
	Below int

	// A page's memory control group has the list of the page's node. Fields are
	// offsets in bytes.
	Memcg       int // memcg_data, in struct page
	ObjectMemcg int // memcg, in struct obj_cgroup; -1 where memcg_data has no such thing
	NodeInfo    int // nodeinfo, in struct mem_cgroup
	GroupNewest int // lruvec.lrugen.max_seq, in struct mem_cgroup_per_node
	NodeNewest  int // the same in struct pglist_data, for pages of no group
}

// load learns the generations. Nothing relies on them, so no kernel is refused for
// them.
func (l *LRU) load(t types) {
	if err := l.learn(t); err != nil {
		*l = LRU{}
	}
}

func (l *LRU) learn(t types) error {
	list, err := t.structure("lruvec")
	if err != nil {
		return err
	}
	at, typ, err := list.member("lrugen")
	if err != nil {
		return err
	}
	inner, ok := btf.UnderlyingType(typ).(*btf.Struct)
	if !ok {
		return fmt.Errorf("struct lruvec: lrugen is a %T", typ)
	}
	gens := structure{inner}
	stamps, err := gens.array("timestamps")
	if err != nil {
		return err
	}
	newest, _, err := gens.member("max_seq")
	if err != nil {
		return err
	}
	if stamps.Nelems < 2 || stamps.Nelems > 16 {
		return fmt.Errorf("%d generations", stamps.Nelems)
	}
	if l.Below, err = cpuBits(t); err != nil {
		return err
	}
	l.Bits = bits.Len(uint(stamps.Nelems)) // order_base_2(MAX_NR_GENS + 1)
	if err := l.groups(t, at+newest); err != nil {
		return err
	}
	l.Count = int(stamps.Nelems)
	return nil
}

// groups learns how a page leads to its list. newest is an offset in struct lruvec.
func (l *LRU) groups(t types, newest int) error {
	for _, s := range []struct {
		name  string
		field offsets
	}{
		{"page", offsets{{&l.Memcg, "memcg_data", 8}}},
		{"mem_cgroup", offsets{{&l.NodeInfo, "nodeinfo", 0}}},
		{"mem_cgroup_per_node", offsets{{&l.GroupNewest, "lruvec", newest + 8}}},
		{"pglist_data", offsets{{&l.NodeNewest, "__lruvec", newest + 8}}},
	} {
		of, err := t.structure(s.name)
		if err != nil {
			return err
		}
		if err := s.field.read(of); err != nil {
			return err
		}
	}
	perNode, err := t.structure("mem_cgroup_per_node")
	if err != nil {
		return err
	}
	l.GroupNewest, l.NodeNewest = l.GroupNewest+newest, l.NodeNewest+newest
	l.ObjectMemcg = -1
	// Since Linux 7.1 the pages of processes and files belong to an obj_cgroup, which
	// can move to another group. Each group then has one for each node.
	if _, _, err := perNode.member("orig_objcg"); err == nil {
		object, err := t.structure("obj_cgroup")
		if err != nil {
			return err
		}
		return offsets{{&l.ObjectMemcg, "memcg", 8}}.read(object)
	}
	return nil
}

// cpuBits returns how many bits of a page's flags name the processor and process
// that used the page last (LAST_CPUPID_WIDTH).
func cpuBits(t types) (int, error) {
	page, err := t.structure("page")
	if err != nil {
		return 0, err
	}
	if _, _, err := page.member("_last_cpupid"); err == nil {
		return 0, nil // there was no room in the flags
	}
	task, err := t.structure("task_struct")
	if err != nil {
		return 0, err
	}
	if _, _, err := task.member("numa_faults"); err != nil {
		return 0, nil // without CONFIG_NUMA_BALANCING
	}
	mask, err := t.structure("cpumask")
	if err != nil {
		return 0, err
	}
	words, err := mask.array("bits")
	if err != nil {
		return 0, err
	}
	const pidBits = 8 // LAST__PID_SHIFT
	if words.Nelems < 1 || words.Nelems > 1<<12 {
		return 0, fmt.Errorf("a cpumask of %d words", words.Nelems)
	}
	return pidBits + bits.Len(uint(words.Nelems*64-1)), nil
}
