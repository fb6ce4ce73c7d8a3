// SPDX-License-Identifier: Apache-2.0

package introspecttest

import (
	"testing"

	"github.com/cilium/ebpf/btf"
)

// mustBTF returns the BTF of the synthetic kernel. tb may be nil.
func mustBTF(tb testing.TB) []byte {
	long := &btf.Int{Name: "unsigned long", Size: 8}
	integer := &btf.Int{Name: "unsigned int", Size: 4}
	field := func(name string, typ btf.Type, offset uint32) btf.Member {
		return btf.Member{Name: name, Type: typ, Offset: btf.Bits(8 * offset)}
	}
	array := func(typ btf.Type, n uint32) btf.Type {
		return &btf.Array{Index: integer, Type: typ, Nelems: n}
	}
	enum := func(name string, values map[string]uint64) btf.Type {
		e := &btf.Enum{Name: name, Size: 4}
		for value, n := range values {
			e.Values = append(e.Values, btf.EnumValue{Name: value, Value: n})
		}
		return e
	}
	owner := &btf.Struct{Size: 40, Members: []btf.Member{
		field("lru", array(long, 2), 0), field("mapping", long, 16), field("private", long, 32),
	}}
	tail := &btf.Struct{Size: 8, Members: []btf.Member{field("compound_head", long, 0)}}
	page := &btf.Struct{Name: "page", Size: 64, Members: []btf.Member{
		field("flags", long, 0),
		{Offset: 64, Type: &btf.Union{Size: 40, Members: []btf.Member{{Type: owner}, {Type: tail}}}},
		field("_mapcount", integer, 48), field("_refcount", integer, 52),
		field("memcg_data", long, 56),
	}}
	folio := &btf.Struct{Name: "folio", Size: 128, Members: []btf.Member{
		field("page", page, 0), field("_flags_1", long, 64),
		field("_large_mapcount", integer, 80), field("_entire_mapcount", integer, 84),
	}}
	area := &btf.Struct{Name: "free_area", Size: 24, Members: []btf.Member{
		field("nr_free", long, 16),
	}}
	zone := &btf.Struct{Name: "zone", Size: ZoneSize, Members: []btf.Member{
		field("name", long, 0), field("zone_start_pfn", long, 8), field("managed_pages", long, 16),
		field("spanned_pages", long, 24), field("present_pages", long, 32),
		field("free_area", array(area, Orders), 40), field("vm_stat", array(long, 4), 400),
		field("per_cpu_pageset", long, 432),
	}}
	links := array(long, 2) // as long as struct list_head
	ofCPU := &btf.Struct{Name: "per_cpu_pages", Size: pagesetSize, Members: []btf.Member{
		field("count", integer, 0), field("lists", array(links, CPULists), lists),
	}}
	generations := &btf.Struct{Name: "lru_gen_folio", Size: 40, Members: []btf.Member{
		field("max_seq", long, 0), field("timestamps", array(long, 4), 8),
	}}
	list := &btf.Struct{Name: "lruvec", Size: 48, Members: []btf.Member{
		field("lrugen", generations, 8),
	}}
	node := &btf.Struct{Name: "pglist_data", Size: NodeSize, Members: []btf.Member{
		field("node_zones", array(zone, 5), 0), field("node_id", integer, 5*ZoneSize),
		field("__lruvec", list, 5*ZoneSize+16),
	}}
	group := &btf.Struct{Name: "mem_cgroup", Size: 16, Members: []btf.Member{
		field("nodeinfo", array(long, 0), groupNodes),
	}}
	perNode := &btf.Struct{Name: "mem_cgroup_per_node", Size: 112, Members: []btf.Member{
		field("lruvec", list, 64),
	}}
	task := &btf.Struct{Name: "task_struct", Size: 8, Members: []btf.Member{
		field("numa_faults", long, 0),
	}}
	cpus := &btf.Struct{Name: "cpumask", Size: 1024, Members: []btf.Member{
		field("bits", array(long, 128), 0),
	}}
	section := &btf.Struct{Name: "mem_section", Size: 16, Members: []btf.Member{
		field("section_mem_map", long, 0),
	}}
	b, err := btf.NewBuilder([]btf.Type{
		page, folio, zone, node, section, group, perNode, task, cpus, ofCPU,
		enum("migratetype", map[string]uint64{"MIGRATE_PCPTYPES": 3}),
		enum("zone_stat_item", map[string]uint64{"NR_FREE_PAGES": 0}),
		enum("zone_type", map[string]uint64{"__MAX_NR_ZONES": 5}),
		enum("system_states", map[string]uint64{"SYSTEM_RUNNING": Running}),
		enum("pageflags", map[string]uint64{
			"PG_locked": 0, "PG_writeback": 1, "PG_uptodate": 3, "PG_dirty": 4, "PG_lru": 5,
			"PG_head": 6, "PG_active": 8, "PG_workingset": 9, "PG_swapcache": 10,
			"PG_reserved": 13, "PG_swapbacked": 17,
		}),
		enum("pagetype", map[string]uint64{
			"PGTY_buddy": 0xf0, "PGTY_offline": 0xf1, "PGTY_table": 0xf2, "PGTY_guard": 0xf3,
			"PGTY_hugetlb": 0xf4, "PGTY_slab": 0xf5,
		}),
	}, nil)
	var blob []byte
	if err == nil {
		blob, err = b.Marshal(nil, nil)
	}
	if err != nil && tb != nil {
		tb.Fatal(err)
	}
	return blob
}
