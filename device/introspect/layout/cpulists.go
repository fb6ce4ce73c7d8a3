// SPDX-License-Identifier: Apache-2.0

package layout

import "fmt"

// CPULists is the layout of the lists of free pages that each CPU keeps for its next
// allocations, struct per_cpu_pages. A kernel whose types are not as expected has Count 0.
type CPULists struct {
	Link    int // offset of lru, the links of a list, in struct page
	Pageset int // offset of per_cpu_pageset, a per-CPU pointer, in struct zone
	Size    int // of struct per_cpu_pages
	Pages   int // offset of count, the number of pages on all lists
	Lists   int // offset of the array of lists
	Count   int // number of its elements
	Types   int // lists of one order: MIGRATE_PCPTYPES
}

// Orders of the lists (mm/page_alloc.c, order_to_pindex).
const (
	costlyOrder = 3 // PAGE_ALLOC_COSTLY_ORDER: these come first
	hugeOrder   = 9 // of all lists after them
)

// Order returns the order of the blocks on a list.
func (c *CPULists) Order(list int) uint8 {
	if order := list / c.Types; order <= costlyOrder {
		return uint8(order)
	}
	return hugeOrder
}

// load learns the lists. They are few pages, so no kernel is refused for them.
func (c *CPULists) load(t types) {
	if err := c.learn(t); err != nil {
		*c = CPULists{}
	}
}

func (c *CPULists) learn(t types) error {
	const listSize = 16 // struct list_head
	perType, err := t.enum("migratetype", "MIGRATE_PCPTYPES")
	if err != nil {
		return err
	}
	pages, err := t.structure("per_cpu_pages")
	if err != nil {
		return err
	}
	lists, err := pages.array("lists")
	if err != nil {
		return err
	}
	c.Size, c.Types = pages.size(), int(perType)
	if c.Size > 4096 || perType < 1 || perType > 8 || lists.Nelems > 64 {
		return fmt.Errorf("struct per_cpu_pages has %d bytes, %d lists, %d of an order",
			c.Size, lists.Nelems, perType)
	}
	for _, s := range []struct {
		name  string
		field offsets
	}{
		{"page", offsets{{&c.Link, "lru", listSize}}},
		{"zone", offsets{{&c.Pageset, "per_cpu_pageset", 8}}},
		{"per_cpu_pages", offsets{
			{&c.Pages, "count", 4}, {&c.Lists, "lists", listSize * int(lists.Nelems)},
		}},
	} {
		of, err := t.structure(s.name)
		if err != nil {
			return err
		}
		if err := s.field.read(of); err != nil {
			return err
		}
	}
	c.Count = int(lists.Nelems)
	return nil
}
