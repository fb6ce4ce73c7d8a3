// SPDX-License-Identifier: Apache-2.0

package census

import (
	"time"

	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// pageSize is the size in bytes of the pages that a census counts.
const pageSize = 4096

// Policy is a way to migrate.
type Policy string

// The policies that an estimate compares.
const (
	// All sends all memory, as QEMU does by itself.
	All Policy = "all"
	// SkipFree leaves out what is free.
	SkipFree Policy = "skip-free"
	// CacheLast also sends cold page cache at the end: device.CacheLast.
	CacheLast Policy = "cache-last"
	// CacheDrop leaves out cold page cache, too, as if the guest dropped it before.
	CacheDrop Policy = "cache-drop"
)

// Estimate is the least that a migration by a policy would send, in bytes, if it
// began now. Pages that the guest writes during the migration are sent again; an
// estimate does not include them.
type Estimate struct {
	Policy Policy `json:"policy"`
	Bytes  uint64 `json:"bytes"`
	// LastBytes are those of Bytes that come at the end: with postcopy, after the switch.
	LastBytes uint64 `json:"last_bytes"`
	Times     []Time `json:"times"` // for each bandwidth that was asked for
}

// Time is how long the bytes take on a link.
type Time struct {
	GbitPerSecond float64 `json:"gbit_per_second"`
	Seconds       float64 `json:"seconds"`
}

// Estimate compares the policies, on links of these bandwidths in Gbit/s. Free pages
// count as used where the guest relies on their contents. Free pages in a processor's
// own cache have no mark in their struct page, so they count as used, too.
func (c *Census) Estimate(links ...float64) []Estimate {
	used, cold := uint64(0), uint64(0)
	for _, class := range c.Classes {
		if class.Class != pages.Free || c.ContentMatters {
			used += class.Pages * pageSize
		}
		cold += class.Cold * pageSize
	}
	used = min(used, c.TouchedBytes)
	cold = min(cold, used)
	all := []Estimate{
		{Policy: All, Bytes: c.TouchedBytes}, {Policy: SkipFree, Bytes: used},
		{Policy: CacheLast, Bytes: used, LastBytes: cold}, {Policy: CacheDrop, Bytes: used - cold},
	}
	for i, e := range all {
		all[i].Times = make([]Time, 0, len(links))
		for _, gbit := range links {
			all[i].Times = append(all[i].Times, Time{gbit, e.At(gbit * 1e9).Seconds()})
		}
	}
	return all
}

// At returns how long the bytes take on a link of that many bits per second.
func (e Estimate) At(bitsPerSecond float64) time.Duration {
	return time.Duration(float64(e.Bytes) * 8 / bitsPerSecond * float64(time.Second))
}
