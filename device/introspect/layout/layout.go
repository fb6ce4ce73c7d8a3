// SPDX-License-Identifier: Apache-2.0

// Package layout learns from a kernel's BTF the offsets of the fields that describe
// its memory, and the marks by which this version tells what a page is.
//
// A kernel whose types are not as expected is refused with a reason. Little is
// assumed beyond BTF; a comment at each assumption names its source.
package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/cilium/ebpf/btf"
)

// ErrUnknown is wrapped by errors about kernels that are not understood.
var ErrUnknown = errors.New("this kernel's memory is not understood")

// MaxBTF bounds a kernel's BTF in bytes; Debian's have 5 MiB.
const MaxBTF = 32 << 20

// magic begins BTF (include/uapi/linux/btf.h). It is checked because the decoder
// also accepts ELF files, and a guest must not reach the parser for those.
const magic = 0xeb9f

// Kernel is the layout of a kernel's memory management.
type Kernel struct {
	Page     Page
	Zone     Zone
	Node     Node
	Section  Section
	LRU      LRU
	CPULists CPULists
	Running  uint32 // the system_state of a kernel in normal operation
}

// Load learns the layout from a kernel's BTF. major and minor are the kernel's
// version, such as 6 and 12. All errors wrap ErrUnknown.
func Load(blob []byte, major, minor int) (k *Kernel, err error) {
	if len(blob) > MaxBTF || len(blob) < 2 || binary.LittleEndian.Uint16(blob) != magic {
		return nil, fmt.Errorf("load BTF: %d bytes are none: %w", len(blob), ErrUnknown)
	}
	// The guest chooses the input. A panic in the decoder, which is a library, must
	// not end the process.
	defer func() {
		if p := recover(); p != nil {
			k, err = nil, fmt.Errorf("load BTF: %v: %w", p, ErrUnknown)
		}
	}()
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(blob))
	if err != nil {
		return nil, fmt.Errorf("load BTF: %w: %w", err, ErrUnknown)
	}
	t := types{spec}
	k = &Kernel{}
	for _, load := range []struct {
		what string
		f    func() error
	}{
		{"struct page", func() error { return k.Page.load(t, major, minor) }},
		{"struct zone", func() error { return k.Zone.load(t) }},
		{"struct pglist_data", func() error { return k.Node.load(t, k.Zone.Size) }},
		{"struct mem_section", func() error { return k.Section.load(t) }},
		{"enum system_states", func() error {
			running, err := t.enum("system_states", "SYSTEM_RUNNING")
			k.Running = uint32(running)
			return err
		}},
	} {
		if err := load.f(); err != nil {
			return nil, fmt.Errorf("learn %s: %w: %w", load.what, err, ErrUnknown)
		}
	}
	k.LRU.load(t)
	k.CPULists.load(t)
	return k, nil
}

// Zone is the layout of struct zone and struct free_area. Fields are offsets in
// bytes unless a comment says otherwise.
type Zone struct {
	Size          int // of struct zone
	Name          int // a pointer
	Start         int // zone_start_pfn
	Spanned       int
	Present       int
	Managed       int
	FreeArea      int // the array of free lists
	FreeAreaSize  int // of an element
	FreeAreaCount int // nr_free, within an element
	Orders        int // number of elements, not an offset
	FreePages     int // the count NR_FREE_PAGES
	Kinds         int // MAX_NR_ZONES, not an offset
}

func (z *Zone) load(t types) error {
	zone, err := t.structure("zone")
	if err != nil {
		return err
	}
	area, err := t.structure("free_area")
	if err != nil {
		return err
	}
	free, err := t.enum("zone_stat_item", "NR_FREE_PAGES")
	if err != nil {
		return err
	}
	kinds, err := t.enum("zone_type", "__MAX_NR_ZONES")
	if err != nil {
		return err
	}
	lists, err := zone.array("free_area")
	if err != nil {
		return err
	}
	z.Size, z.FreeAreaSize = zone.size(), area.size()
	z.Orders, z.Kinds = int(lists.Nelems), int(kinds)
	if z.Orders < 1 || z.Orders > 32 || kinds < 1 || kinds > 8 || free > 64 {
		return fmt.Errorf("%d orders, %d kinds of zones, count %d", z.Orders, kinds, free)
	}
	if err := (offsets{
		{&z.Name, "name", 8}, {&z.Start, "zone_start_pfn", 8}, {&z.Spanned, "spanned_pages", 8},
		{&z.Present, "present_pages", 8}, {&z.Managed, "managed_pages", 8},
		{&z.FreeArea, "free_area", z.Orders * z.FreeAreaSize},
		{&z.FreePages, "vm_stat", 8 * (int(free) + 1)},
	}).read(zone); err != nil {
		return err
	}
	z.FreePages += 8 * int(free)
	return offsets{{&z.FreeAreaCount, "nr_free", 8}}.read(area)
}

// ZoneBits returns how many bits of a page's flags name its zone
// (include/linux/page-flags-layout.h).
func (z *Zone) ZoneBits() int { return max(1, bits.Len(uint(z.Kinds-1))) }

// Node is the layout of struct pglist_data.
type Node struct {
	Size  int
	Zones int // offset of the array of zones
	Count int // number of its elements
	ID    int // offset of node_id
}

func (n *Node) load(t types, zoneSize int) error {
	node, err := t.structure("pglist_data")
	if err != nil {
		return err
	}
	zones, err := node.array("node_zones")
	if err != nil {
		return err
	}
	n.Size, n.Count = node.size(), int(zones.Nelems)
	if n.Count < 1 || n.Count > 8 {
		return fmt.Errorf("%d zones", n.Count)
	}
	return offsets{{&n.Zones, "node_zones", n.Count * zoneSize}, {&n.ID, "node_id", 4}}.read(node)
}

// Section is the layout of struct mem_section.
type Section struct {
	Size   int
	MemMap int // offset of section_mem_map
}

func (s *Section) load(t types) error {
	section, err := t.structure("mem_section")
	if err != nil {
		return err
	}
	s.Size = section.size()
	return offsets{{&s.MemMap, "section_mem_map", 8}}.read(section)
}
