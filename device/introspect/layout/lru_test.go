// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"testing"

	"github.com/cilium/ebpf/btf"
)

// generations are the types that a kernel with generations has more.
type generations struct {
	gens, list, group, perNode, object, task, cpus *btf.Struct
}

// withGenerations adds the types of Linux 6.12, and returns them for changes.
func (k *kernel) withGenerations() *generations {
	g := &generations{}
	made := func(name string, size uint32, members ...btf.Member) *btf.Struct {
		s := &btf.Struct{Name: name, Size: size, Members: members}
		k.more = append(k.more, s)
		return s
	}
	g.gens = made("lru_gen_folio", 1344,
		field("max_seq", long, 0), field("timestamps", array(long, 4), 24))
	g.list = made("lruvec", 1560, field("lrugen", g.gens, 136))
	g.group = made("mem_cgroup", 1696, field("nodeinfo", array(long, 0), 1696))
	g.perNode = made("mem_cgroup_per_node", 1920, field("lruvec", g.list, 64))
	g.object = made("obj_cgroup", 48, field("memcg", long, 16))
	g.task = made("task_struct", 8, field("numa_faults", long, 0))
	g.cpus = made("cpumask", 1024, field("bits", array(long, 128), 0))
	k.page.Members = append(k.page.Members, field("memcg_data", long, 56))
	k.node.Members = append(k.node.Members, field("__lruvec", g.list, 6000))
	return g
}

func TestGenerationsAreLearnt(t *testing.T) {
	want := LRU{
		Count: 4, Bits: 3, Below: 21, Memcg: 56, ObjectMemcg: -1, NodeInfo: 1696,
		GroupNewest: 200, NodeNewest: 6136,
	}
	for name, tc := range map[string]struct {
		change func(k *kernel, g *generations)
		want   func(l *LRU)
	}{
		"6.12": {func(*kernel, *generations) {}, func(*LRU) {}},
		"pages of objects, since 7.1": {
			func(_ *kernel, g *generations) {
				g.perNode.Members = append(g.perNode.Members, field("orig_objcg", long, 1912))
			},
			func(l *LRU) { l.ObjectMemcg = 16 },
		},
		"no NUMA balancing": {
			func(_ *kernel, g *generations) { g.task.Members = nil }, func(l *LRU) { l.Below = 0 },
		},
		"no room for processors in the flags": {
			func(k *kernel, _ *generations) {
				k.page.Members = append(k.page.Members, field("_last_cpupid", integer, 60))
			},
			func(l *LRU) { l.Below = 0 },
		},
		"few processors": {
			func(_ *kernel, g *generations) { g.cpus.Members[0].Type = array(long, 1) },
			func(l *LRU) { l.Below = 14 },
		},
		"no generations": {
			func(_ *kernel, g *generations) { g.list.Members = nil }, func(l *LRU) { *l = LRU{} },
		},
		"generations without number": {
			func(_ *kernel, g *generations) { g.gens.Members[1].Type = array(long, 99) },
			func(l *LRU) { *l = LRU{} },
		},
		"no groups": {
			func(_ *kernel, g *generations) { g.group.Name = "mob" }, func(l *LRU) { *l = LRU{} },
		},
		"a list outside": {
			func(_ *kernel, g *generations) { g.perNode.Size = 200 }, func(l *LRU) { *l = LRU{} },
		},
		"a list that is a number": {
			func(_ *kernel, g *generations) { g.list.Members[0].Type = long },
			func(l *LRU) { *l = LRU{} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			types := newKernel()
			tc.change(types, types.withGenerations())
			k, err := Load(types.blob(t), 6, 12)
			if err != nil {
				t.Fatal(err)
			}
			want := want
			if tc.want(&want); k.LRU != want {
				t.Errorf("got  %+v\nwant %+v", k.LRU, want)
			}
		})
	}
}
