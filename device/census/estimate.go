// SPDX-License-Identifier: Apache-2.0

package census

import (
	"time"

	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// pageSize is that of the pages that are counted.
const pageSize = 4096

// Policy is a way to migrate.
type Policy string

// The policies that an estimate compares.
const (
	// All sends all memory, as QEMU does by itself.
	All Policy = "all"
	// SkipFree leaves out what is free.
	SkipFree Policy = "skip-free"
	// SkipCache leaves out clean page cache, too, as when the guest drops it first.
	SkipCache Policy = "skip-cache"
)

// Estimate is what a migration by a policy would send at least, if it began now.
// The guest writes while it is migrated, and what it writes is sent again: that is
// not in it.
type Estimate struct {
	Policy Policy `json:"policy"`
	Bytes  uint64 `json:"bytes"`
}

// Estimate compares the policies. Where the guest relies on what is in its free
// pages, none leaves them out. Free pages on the lists of single processors carry
// no mark, and count as used.
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

// At returns how long the bytes take on a link of so many bits a second.
func (e Estimate) At(bitsPerSecond float64) time.Duration {
	return time.Duration(float64(e.Bytes) * 8 / bitsPerSecond * float64(time.Second))
}
