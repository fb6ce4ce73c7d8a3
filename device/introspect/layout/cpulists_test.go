// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"testing"

	"github.com/cilium/ebpf/btf"
)

func TestListsOfCPUsAreLearnt(t *testing.T) {
	want := CPULists{Link: 8, Pageset: 96, Size: 256, Pages: 4, Lists: 32, Count: 14, Types: 3}
	none := CPULists{}
	for name, tc := range map[string]struct {
		change func(k *kernel, lists *btf.Struct)
		want   CPULists
	}{
		"6.12": {func(*kernel, *btf.Struct) {}, want},
		"no types": {
			func(k *kernel, _ *btf.Struct) { delete(k.enums, "migratetype") }, none,
		},
		"no order has lists": {
			func(k *kernel, _ *btf.Struct) { k.enums["migratetype"]["MIGRATE_PCPTYPES"] = 0 }, none,
		},
		"no lists": {
			func(_ *kernel, lists *btf.Struct) { lists.Members = lists.Members[:1] }, none,
		},
		"more lists than there is room for": {
			func(_ *kernel, lists *btf.Struct) { lists.Size = 200 }, none,
		},
		"another kind of zone": {
			func(k *kernel, _ *btf.Struct) { k.zone.Members = k.zone.Members[:7] }, none,
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel()
			links := array(long, 2)
			k.page.Members = append(k.page.Members, field("lru", links, 8))
			k.zone.Members = append(k.zone.Members, field("per_cpu_pageset", long, 96))
			lists := &btf.Struct{Name: "per_cpu_pages", Size: 256, Members: []btf.Member{
				field("count", integer, 4), field("lists", array(links, 14), 32),
			}}
			k.more = append(k.more, lists)
			k.enums["migratetype"] = map[string]uint64{"MIGRATE_PCPTYPES": 3}
			tc.change(k, lists)
			got, err := Load(k.blob(t), 6, 12)
			if err != nil || got.CPULists != tc.want {
				t.Fatalf("%+v, %v; want %+v", got.CPULists, err, tc.want)
			}
		})
	}
}

func TestOrdersOfTheListsOfCPUs(t *testing.T) {
	lists := CPULists{Types: 3}
	for list, want := range map[int]uint8{0: 0, 2: 0, 3: 1, 11: 3, 12: 9, 13: 9} {
		if got := lists.Order(list); got != want {
			t.Errorf("list %d has order %d, want %d", list, got, want)
		}
	}
}
