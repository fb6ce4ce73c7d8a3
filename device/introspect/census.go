// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// Counts are numbers of pages of one class. A page can be in several of those
// that are not Pages.
type Counts struct {
	Pages     uint64 `json:"pages"`
	Mapped    uint64 `json:"mapped"`
	Dirty     uint64 `json:"dirty"`
	Writeback uint64 `json:"writeback"`
	SwapCache uint64 `json:"swap_cache"`
	Clean     uint64 `json:"clean"`
}

// add counts n pages of one kind.
func (c *Counts) add(a pages.Attr, n uint64) {
	c.Pages += n
	for _, count := range [...]struct {
		attr pages.Attr
		to   *uint64
	}{
		{pages.Mapped, &c.Mapped}, {pages.Dirty, &c.Dirty}, {pages.Writeback, &c.Writeback},
		{pages.SwapCache, &c.SwapCache}, {pages.Clean, &c.Clean},
	} {
		if a&count.attr != 0 {
			*count.to += n
		}
	}
}

func (c *Counts) merge(o Counts) {
	c.Pages += o.Pages
	c.Mapped += o.Mapped
	c.Dirty += o.Dirty
	c.Writeback += o.Writeback
	c.SwapCache += o.SwapCache
	c.Clean += o.Clean
}

// ZoneCensus are the pages of a zone.
type ZoneCensus struct {
	Zone
	Classes [pages.Classes]Counts `json:"-"`
	Blocks  []uint64              `json:"blocks"` // free blocks that the scan found, by order
}

// ByClass returns the classes that the zone has pages of.
func (z *ZoneCensus) ByClass() map[pages.Class]Counts {
	found := make(map[pages.Class]Counts)
	for class, n := range z.Classes {
		if n.Pages > 0 {
			found[pages.Class(class)] = n
		}
	}
	return found
}

// Census is what a scan found.
type Census struct {
	Zones []ZoneCensus
	// Elsewhere counts pages that say to be of a zone that is none.
	Elsewhere [pages.Classes]Counts
	// Refused is the number of blocks that said to be free and cannot be: of an
	// order that does not exist, not aligned, or not in RAM.
	Refused uint64
	// Read is the number of struct pages that were looked at.
	Read uint64
}

func newCensus(zones []Zone) *Census {
	c := &Census{Zones: make([]ZoneCensus, len(zones))}
	for i, zone := range zones {
		c.Zones[i] = ZoneCensus{Zone: zone, Blocks: make([]uint64, len(zone.Free))}
	}
	return c
}

// Total adds up a class.
func (c *Census) Total(class pages.Class) Counts {
	total := c.Elsewhere[class]
	for i := range c.Zones {
		total.merge(c.Zones[i].Classes[class])
	}
	return total
}

// tally counts pages while a scan goes on: by zone, the first being none, by
// class, and by all attributes together.
type tally struct {
	pages         []uint64
	refused, read uint64
}

func newTally(zones int) *tally {
	return &tally{pages: make([]uint64, (zones+1)*int(pages.Classes)*pages.Attrs)}
}

// add counts n pages of a zone, which may be -1.
func (t *tally) add(zone int, p pages.Page, n uint64) {
	t.pages[((zone+1)*int(pages.Classes)+int(p.Class))*pages.Attrs+int(p.Attr)] += n
}

// collect adds a tally, and the free blocks of each zone by order.
func (c *Census) collect(t *tally, blocks [][]uint64) {
	for i, n := range t.pages {
		if n == 0 {
			continue
		}
		attr, class := pages.Attr(i%pages.Attrs), i/pages.Attrs%int(pages.Classes)
		if zone := i/pages.Attrs/int(pages.Classes) - 1; zone >= 0 {
			c.Zones[zone].Classes[class].add(attr, n)
		} else {
			c.Elsewhere[class].add(attr, n)
		}
	}
	for zone := range blocks {
		for order, n := range blocks[zone] {
			c.Zones[zone].Blocks[order] += n
		}
	}
	c.Refused += t.refused
	c.Read += t.read
}
