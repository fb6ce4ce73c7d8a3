// SPDX-License-Identifier: Apache-2.0

package pages

// Heat says how soon a page is likely to be used again.
type Heat uint8

// The heats.
const (
	Warm Heat = iota // nothing is known
	Hot              // soon: the kernel's own, or used lately
	Cold             // late if ever: cache that can be read again
)

// Heat returns a page's heat. The kernel's own pages are hot. A page of processes or
// files is hot if it is Active. Otherwise it is cold if it is Clean.
//
// Having been read once (PG_referenced) does not make cache hot, nor save it from
// being cold: the kernel reclaims such pages first, too (mm/vmscan.c,
// folio_check_references).
func (p Page) Heat() Heat {
	switch p.Class {
	case Reserved, Kernel, Slab, PageTable:
		return Hot
	}
	switch {
	case p.Attr&Active != 0:
		return Hot
	case p.Attr&Clean != 0:
		return Cold
	}
	return Warm
}
