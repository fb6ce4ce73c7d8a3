// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"maps"
	"testing"

	"github.com/cilium/ebpf/btf"
)

var (
	btfWord = &btf.Int{Name: "unsigned long", Size: 8}
	// anonymous is a member without a name, in which others are.
	anonymous = ""
)

// lruTypes returns the types of a kernel for so many nodes, kinds of zones and processors.
func lruTypes(t *testing.T, nodes, zones, cpus uint32, more ...btf.Type) *btf.Spec {
	t.Helper()
	array := func(n uint32) btf.Type {
		return &btf.Array{Index: btfWord, Type: btfWord, Nelems: n}
	}
	in := func(name string, members ...btf.Member) *btf.Struct {
		return &btf.Struct{Name: name, Members: members}
	}
	all := append([]btf.Type{
		in("pglist_data", btf.Member{Name: "node_zones", Type: array(zones)}),
		in("zonelist", btf.Member{Name: "_zonerefs", Type: array(nodes*zones + 1)}),
		in("cpumask", btf.Member{Name: "bits", Type: array(cpus / 64)}),
		in("task_struct", btf.Member{Name: "numa_faults", Type: btfWord}),
		in("lruvec", btf.Member{Name: "lrugen", Type: in("lru_gen_folio",
			btf.Member{Name: "max_seq", Type: btfWord},
			btf.Member{Name: "timestamps", Type: array(4)})}),
	}, more...)
	b, err := btf.NewBuilder(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := b.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// pageWith is a struct page with a member inside a union.
func pageWith(name string) btf.Type {
	return &btf.Struct{Name: "page", Members: []btf.Member{
		{Name: "flags", Type: btfWord},
		{Name: anonymous, Type: &btf.Union{Members: []btf.Member{{Name: name, Type: btfWord}}}},
	}}
}

// The numbers are those of the kernel's own header, for these configurations.
func TestGenerationOfAPageIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		types            *btf.Spec
		node, generation uint64
	}{
		"Debian's, with room for the processor": {
			lruTypes(t, 1024, 5, 8192, pageWith("memcg_data")), 54, 54 - 3 - 8 - 13 - 3,
		},
		"without room":   {lruTypes(t, 1024, 5, 8192, pageWith("_last_cpupid")), 54, 54 - 3 - 3},
		"a small kernel": {lruTypes(t, 1, 2, 64, pageWith("_last_cpupid")), 64, 64 - 1 - 3},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := LRU(c.types)
			want := map[string]uint64{
				"node_shift": c.node, "generation_shift": c.generation, "generations": 4,
			}
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
		})
	}
}

func TestKernelWithoutGenerationsIsNotKnown(t *testing.T) {
	for name, types := range map[string]*btf.Spec{
		"no page":          lruTypes(t, 1, 2, 64),
		"no room at all":   lruTypes(t, 1<<12, 1<<30, 1<<20, pageWith("memcg_data")),
		"a list of others": lruTypes(t, 0, 2, 64, pageWith("memcg_data")),
	} {
		if got, err := LRU(types); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}
