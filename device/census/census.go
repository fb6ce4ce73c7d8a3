// SPDX-License-Identifier: Apache-2.0

// Package census tells an operator what a guest uses its memory for. It needs no
// agent and no migration, and changes nothing in the guest. Package introspect
// reads the guest's memory from the host; this package selects what is shown and
// takes one census at a time.
package census

import (
	"context"
	"sync"
	"time"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// Class is the number of pages of one class. The counts other than Pages are of
// subsets of these pages, and may overlap.
type Class struct {
	Class pages.Class `json:"class"`
	introspect.Counts
}

// Zone is a zone of the guest's memory, with its pages by class.
type Zone struct {
	Node    int     `json:"node"`
	Name    string  `json:"zone"`
	Classes []Class `json:"classes"` // those that have pages
}

// Census is what a guest uses its memory for. A guest that runs changes its
// memory while it is counted, so sums are approximate.
type Census struct {
	Release string `json:"release"` // of the kernel
	// ContentMatters says that the guest relies on the contents of its free pages,
	// so no migration may leave them out.
	ContentMatters bool `json:"content_matters"`
	// MemoryBytes is the size of the guest's memory. TouchedBytes is the part for
	// which the host has allocated memory so far. The rest reads as zeroes.
	MemoryBytes  uint64 `json:"memory_bytes"`
	TouchedBytes uint64 `json:"touched_bytes"`

	Classes []Class `json:"classes"` // of all memory
	Zones   []Zone  `json:"zones"`
	// FoundUS and CountedUS are how long it took to find the kernel, and then to
	// count, in microseconds.
	FoundUS   int64 `json:"found_us"`
	CountedUS int64 `json:"counted_us"`

	Program *Program `json:"program,omitempty"` // nil: the host has counted
}

// Taker takes censuses, one at a time. It is safe for concurrent use. The zero
// value is usable.
type Taker struct {
	mu sync.Mutex
}

// Take takes a census of a kernel's memory. It fails when the memory is not laid
// out as expected, and when ctx ends. It leaves FoundUS for the caller to set.
func (t *Taker) Take(ctx context.Context, kernel *introspect.Kernel) (*Census, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	begun := time.Now()
	content, err := kernel.Content()
	if err != nil {
		return nil, err
	}
	scan, err := kernel.Scan(ctx, introspect.ScanOptions{})
	if err != nil {
		return nil, err
	}
	touched, err := kernel.Memory().Touched()
	if err != nil {
		return nil, err
	}
	c := &Census{
		MemoryBytes:    kernel.Memory().Size(),
		TouchedBytes:   touched,
		Release:        kernel.Release,
		ContentMatters: content.Matters(),
		Classes:        classes(scan.Total),
		CountedUS:      time.Since(begun).Microseconds(),
	}
	for i := range scan.Zones {
		z := &scan.Zones[i]
		c.Zones = append(c.Zones, Zone{
			Node: z.Node, Name: z.Name,
			Classes: classes(func(class pages.Class) introspect.Counts { return z.Classes[class] }),
		})
	}
	return c, nil
}

func classes(of func(pages.Class) introspect.Counts) []Class {
	var all []Class
	for class := range pages.Classes {
		if n := of(class); n.Pages > 0 {
			all = append(all, Class{class, n})
		}
	}
	return all
}
