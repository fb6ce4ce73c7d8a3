// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// Counts are numbers of pages of one class: all of them, and those with each
// attribute. A page can have several attributes.
type Counts struct {
	Pages     uint64 `json:"pages"`
	Mapped    uint64 `json:"mapped"`
	Dirty     uint64 `json:"dirty"`
	Writeback uint64 `json:"writeback"`
	SwapCache uint64 `json:"swap_cache"`
	Clean     uint64 `json:"clean"`
	Active    uint64 `json:"active"`
	// Cold counts those that are Clean and not Active.
	Cold uint64 `json:"cold"`
}

// add counts n pages with the same attributes.
func (c *Counts) add(a pages.Attr, n uint64) {
	c.Pages += n
	for _, count := range [...]struct {
		attr pages.Attr
		to   *uint64
	}{
		{pages.Mapped, &c.Mapped}, {pages.Dirty, &c.Dirty}, {pages.Writeback, &c.Writeback},
		{pages.SwapCache, &c.SwapCache}, {pages.Clean, &c.Clean}, {pages.Active, &c.Active},
	} {
		if a&count.attr != 0 {
			*count.to += n
		}
	}
	if a&(pages.Clean|pages.Active) == pages.Clean {
		c.Cold += n
	}
}

func (c *Counts) merge(o Counts) {
	c.Pages += o.Pages
	c.Mapped += o.Mapped
	c.Dirty += o.Dirty
	c.Writeback += o.Writeback
	c.SwapCache += o.SwapCache
	c.Clean += o.Clean
	c.Active += o.Active
	c.Cold += o.Cold
}

// ZoneCensus counts the pages of a zone.
type ZoneCensus struct {
	Zone
	Classes [pages.Classes]Counts `json:"-"`
	Blocks  []uint64              `json:"blocks"` // free blocks that the scan found, by order
}

// ByClass returns the counts of the classes that have pages in the zone.
func (z *ZoneCensus) ByClass() map[pages.Class]Counts {
	found := make(map[pages.Class]Counts)
	for class, n := range z.Classes {
		if n.Pages > 0 {
			found[pages.Class(class)] = n
		}
	}
	return found
}

// Census is the result of a scan.
type Census struct {
	Zones []ZoneCensus
	// Elsewhere counts pages whose flags name a zone that does not exist.
	Elsewhere [pages.Classes]Counts
	// Refused is the number of pages that are marked as the first of a free block
	// that is impossible: its order does not exist, it is not aligned, or it is
	// not in RAM or in a zone.
	Refused uint64
	// Read is the number of struct pages that were read.
	Read uint64
	// CPULists is why lists of free pages of CPUs were left out. It is nil if they were all
	// read, but for those that changed all the time, or were not asked for.
	CPULists error
}

func newCensus(zones []Zone) *Census {
	c := &Census{Zones: make([]ZoneCensus, len(zones))}
	for i, zone := range zones {
		c.Zones[i] = ZoneCensus{Zone: zone, Blocks: make([]uint64, len(zone.Free))}
	}
	return c
}

// Total returns the counts of a class in all zones and Elsewhere.
func (c *Census) Total(class pages.Class) Counts {
	total := c.Elsewhere[class]
	for i := range c.Zones {
		total.merge(c.Zones[i].Classes[class])
	}
	return total
}

// tally counts pages during a scan, by zone, class and set of attributes. Index 0
// is for pages of no zone.
type tally struct {
	pages         []uint64
	refused, read uint64
}

func newTally(zones int) *tally {
	return &tally{pages: make([]uint64, (zones+1)*int(pages.Classes)*pages.Attrs)}
}

// add counts n pages of a zone; -1 is no zone.
func (t *tally) add(zone int, p pages.Page, n uint64) {
	t.pages[((zone+1)*int(pages.Classes)+int(p.Class))*pages.Attrs+int(p.Attr)] += n
}

// collect adds a scanner's tally, and its free blocks by zone and order.
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
