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
	// SkipCache also leaves out clean page cache, as if the guest dropped it first.
	SkipCache Policy = "skip-cache"
)

// Estimate is the least that a migration by a policy would send, in bytes, if it
// began now. Pages that the guest writes during the migration are sent again; an
// estimate does not include them.
type Estimate struct {
	Policy Policy `json:"policy"`
	Bytes  uint64 `json:"bytes"`
}

// Estimate compares the policies. Free pages count as used where the guest relies
// on their contents. Free pages in a processor's own cache have no mark in their
// struct page, so they count as used, too.
func (c *Census) Estimate() []Estimate {
	used, clean := uint64(0), uint64(0)
	for _, class := range c.Classes {
		if class.Class != pages.Free || c.ContentMatters {
			used += class.Pages * pageSize
		}
		clean += class.Clean * pageSize
	}
	used = min(used, c.TouchedBytes)
	return []Estimate{{All, c.TouchedBytes}, {SkipFree, used}, {SkipCache, used - min(clean, used)}}
}

// At returns how long the bytes take on a link of that many bits per second.
func (e Estimate) At(bitsPerSecond float64) time.Duration {
	return time.Duration(float64(e.Bytes) * 8 / bitsPerSecond * float64(time.Second))
}
