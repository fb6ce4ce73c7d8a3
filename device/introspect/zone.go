// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/kallsyms"
	"github.com/fbpp-project/fbpp/device/introspect/layout"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// Zone is a zone of a NUMA node as the kernel describes it. Sizes are in pages.
type Zone struct {
	Node  int    `json:"node"`
	Kind  int    `json:"-"` // the kernel's enum zone_type
	Name  string `json:"name"`
	Start uint64 `json:"start"` // page frame number
	// Spanned counts all pages from Start to the end of the zone, Present those
	// that exist, Managed those that the page allocator manages.
	Spanned uint64 `json:"spanned"`
	Present uint64 `json:"present"`
	Managed uint64 `json:"managed"`
	// Free is the kernel's own count of free blocks by order, as in
	// /proc/buddyinfo. FreePages is its count of free pages.
	Free      []uint64 `json:"free"`
	FreePages uint64   `json:"free_pages"`

	pageset uint64 // the kernel's per_cpu_pageset, if it is known where that is
}

// maxNodes bounds the NUMA nodes; Debian's kernels are built for 1024.
const maxNodes = 4096

// maxZoneName bounds the name of a zone, in bytes.
const maxZoneName = 32

// nodes returns the addresses of the pglist_data of all nodes.
func (k *Kernel) nodes() ([]uint64, error) {
	table, err := k.symbols.Address(symbolNodes)
	if errors.Is(err, kallsyms.ErrNoSymbol) {
		only, err := k.symbols.Address(symbolOneNode) // without CONFIG_NUMA
		return []uint64{only}, err
	}
	if err != nil {
		return nil, err
	}
	count, err := k.maxNodes()
	if err != nil {
		return nil, err
	}
	words := make([]byte, 8*count)
	if err := k.space.Read(words, table); err != nil {
		return nil, fmt.Errorf("read node_data: %w", err)
	}
	var found []uint64
	for ; len(words) > 0; words = words[8:] {
		if address := binary.LittleEndian.Uint64(words); address != 0 {
			found = append(found, address)
		}
	}
	return found, nil
}

// maxNodes returns how many nodes the kernel is built for.
func (k *Kernel) maxNodes() (int, error) {
	count, err := k.note.Info.Length("node_data")
	if err != nil {
		return 1, nil // without CONFIG_NUMA
	}
	if count == 0 || count > maxNodes || count&(count-1) != 0 {
		return 0, fmt.Errorf("%d nodes: %w", count, layout.ErrUnknown)
	}
	return int(count), nil
}

// Zones returns the zones that have memory, by node and kind. While the guest
// runs, the counts are not of the same instant.
func (k *Kernel) Zones() ([]Zone, error) {
	nodes, err := k.nodes()
	if err != nil {
		return nil, fmt.Errorf("read zones: %w", err)
	}
	var zones []Zone
	for _, node := range nodes {
		id, err := k.space.Uint32(node + uint64(k.layout.Node.ID))
		if err != nil {
			return nil, fmt.Errorf("read a node: %w", err)
		}
		for kind := range k.layout.Node.Count {
			at := node + uint64(k.layout.Node.Zones+kind*k.layout.Zone.Size)
			zone, err := k.readZone(at)
			if err != nil {
				return nil, fmt.Errorf("read zone %d of node %d: %w", kind, id, err)
			}
			if zone.Spanned == 0 || zone.Present == 0 {
				continue
			}
			zone.Node, zone.Kind = int(id), kind
			zones = append(zones, zone)
		}
	}
	if len(zones) == 0 {
		return nil, fmt.Errorf("read zones: none has memory: %w", layout.ErrUnknown)
	}
	return zones, nil
}

func (k *Kernel) readZone(at uint64) (Zone, error) {
	l := &k.layout.Zone
	raw := make([]byte, l.Size)
	if err := k.space.Read(raw, at); err != nil {
		return Zone{}, err
	}
	word := func(at int) uint64 { return binary.LittleEndian.Uint64(raw[at:]) }
	zone := Zone{
		Start: word(l.Start), Spanned: word(l.Spanned), Present: word(l.Present),
		Managed: word(l.Managed), FreePages: word(l.FreePages),
	}
	if zone.Spanned == 0 {
		return zone, nil
	}
	if lists := &k.layout.CPULists; lists.Count > 0 {
		zone.pageset = word(lists.Pageset)
	}
	for order := range l.Orders {
		zone.Free = append(zone.Free, word(l.FreeArea+order*l.FreeAreaSize+l.FreeAreaCount))
	}
	name, err := k.space.String(word(l.Name), maxZoneName)
	zone.Name = protocol.Printable([]byte(name))
	return zone, err
}

// zoneTable finds a page's zone by the page's flags. Their highest bits are the
// number of the node, and the bits below it the kind of zone
// (include/linux/page-flags-layout.h, with SPARSEMEM_VMEMMAP).
type zoneTable struct {
	shift    int
	kindBits int
	index    []int16 // by node and kind; -1 for none
}

// newZoneTable makes the table, and checks it against a page of each zone.
func (k *Kernel) newZoneTable(zones []Zone) (*zoneTable, error) {
	count, err := k.maxNodes()
	if err != nil {
		return nil, err
	}
	kindBits, nodeBits := k.layout.Zone.ZoneBits(), 0
	for 1<<nodeBits < count {
		nodeBits++
	}
	t := &zoneTable{
		shift: 64 - nodeBits - kindBits, kindBits: kindBits,
		index: make([]int16, 1<<(nodeBits+kindBits)),
	}
	for i := range t.index {
		t.index[i] = -1
	}
	for i, zone := range zones {
		slot := zone.Node<<kindBits | zone.Kind
		if zone.Node >= count || slot >= len(t.index) || t.index[slot] >= 0 {
			return nil, fmt.Errorf("zone %d of node %d: %w", zone.Kind, zone.Node, layout.ErrUnknown)
		}
		t.index[slot] = int16(i)
	}
	for i, zone := range zones {
		if err := t.prove(k, i, zone.Start); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// prove checks that the flags of a zone's first page name the zone.
func (t *zoneTable) prove(k *Kernel, i int, start uint64) error {
	if !k.mem.Contains(start<<pageShift, 1<<pageShift) {
		return nil // memory that is not shared with the device
	}
	flags, err := k.space.Uint64(k.pageAddress(start) + uint64(k.layout.Page.Flags))
	if err != nil {
		return fmt.Errorf("read the first page of a zone: %w", err)
	}
	if found := t.find(flags); found != i {
		return fmt.Errorf("the first page of zone %d says zone %d: %w", i, found, layout.ErrUnknown)
	}
	return nil
}

// node returns the number of the node.
func (t *zoneTable) node(flags uint64) int { return int(flags >> t.shift >> t.kindBits) }

// find returns the number of the zone, or -1.
func (t *zoneTable) find(flags uint64) int { return int(t.index[flags>>t.shift]) }
