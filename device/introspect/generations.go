// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"

	"github.com/fbpp-project/fbpp/device/introspect/layout"
)

// maxLists bounds the lists of pages that a scan looks up: one for each memory
// control group and node.
const maxLists = 4096

// generations tells which pages the kernel's multi-generational LRU counts as used
// lately: those of the two newest generations of their list, as lru_gen_is_active of
// include/linux/mm_inline.h does. A scanner uses it by itself. What it says is never
// relied on.
type generations struct {
	k     *Kernel
	lru   *layout.LRU
	zones *zoneTable
	shift int // of the generation, in a page's flags

	nodes map[int]uint64      // addresses of pglist_data, by number; nil before it is needed
	known map[pageList]uint32 // of each list, which generations are young
	last  pageList
	mask  uint32 // known[last]
}

// pageList names a list of pages. group is a page's memcg_data; 0 is no group.
type pageList struct {
	group uint64
	node  int
}

// newGenerations returns nil for a kernel without generations.
func newGenerations(k *Kernel, zones *zoneTable) *generations {
	l := &k.layout.LRU
	shift := zones.shift - l.Below - l.Bits
	if l.Count == 0 || shift < 0 {
		return nil
	}
	return &generations{
		k: k, lru: l, zones: zones, shift: shift, known: make(map[pageList]uint32),
		last: pageList{node: -1},
	}
}

// young says whether a page, by the struct page of its head, was used lately.
func (g *generations) young(p []byte, flags uint64) bool {
	generation := flags >> g.shift & (1<<g.lru.Bits - 1)
	if generation == 0 {
		return false // not on a list, or on one without generations
	}
	const flagBits = 7 // of memcg_data
	list := pageList{
		binary.LittleEndian.Uint64(p[g.lru.Memcg:]) &^ flagBits, g.zones.node(flags),
	}
	if list != g.last {
		g.last, g.mask = list, g.lookUp(list)
	}
	return g.mask>>generation&1 != 0
}

// lookUp returns which generations of a list are young, by their numbers in flags of
// pages. It is none of a list that cannot be read.
func (g *generations) lookUp(list pageList) uint32 {
	mask, known := g.known[list]
	if known || len(g.known) == maxLists {
		return mask
	}
	if newest, err := g.read(list); err == nil {
		count := uint64(g.lru.Count)
		mask = 1<<(newest%count+1) | 1<<((newest+count-1)%count+1)
	}
	g.known[list] = mask
	return mask
}

// read returns the number of a list's newest generation.
func (g *generations) read(list pageList) (uint64, error) {
	if list.group == 0 {
		return g.k.space.Uint64(g.nodeAt(list.node) + uint64(g.lru.NodeNewest))
	}
	group := list.group
	if g.lru.ObjectMemcg >= 0 {
		var err error
		if group, err = g.k.space.Uint64(group + uint64(g.lru.ObjectMemcg)); err != nil {
			return 0, err
		}
	}
	perNode, err := g.k.space.Uint64(group + uint64(g.lru.NodeInfo) + 8*uint64(list.node))
	if err != nil {
		return 0, err
	}
	return g.k.space.Uint64(perNode + uint64(g.lru.GroupNewest))
}

// nodeAt returns the address of a node, or 0, which is no address of a kernel.
func (g *generations) nodeAt(node int) uint64 {
	if g.nodes == nil {
		g.nodes = make(map[int]uint64)
		all, err := g.k.nodes()
		if err != nil {
			return 0
		}
		for _, at := range all {
			if id, err := g.k.space.Uint32(at + uint64(g.k.layout.Node.ID)); err == nil {
				g.nodes[int(id)] = at
			}
		}
	}
	return g.nodes[node]
}
