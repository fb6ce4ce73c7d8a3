// SPDX-License-Identifier: Apache-2.0

// Package census tells an operator what a guest uses its memory for, as the host
// alone sees it: no agent, no migration, nothing is changed in the guest. Package
// introspect does the looking; this one says what of it is shown, and bounds
// what it costs.
package census

import (
	"context"
	"sync"
	"time"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// Class is how many pages of a class there are. Mapped, Dirty and Clean are
// subsets of Pages.
type Class struct {
	Class pages.Class `json:"class"`
	introspect.Counts
}

// Zone is a zone of the guest's memory, by what its pages are used for.
type Zone struct {
	Node    int     `json:"node"`
	Name    string  `json:"zone"`
	Classes []Class `json:"classes"` // those that have pages
}

// Census is what a guest uses its memory for. While the guest runs it changes
// as it is counted, so sums are approximate.
type Census struct {
	Release string `json:"release"` // of the kernel
	// ContentMatters says that the guest relies on what is in its free pages, so
	// that no migration may leave them out.
	ContentMatters bool `json:"content_matters"`
	// MemoryBytes is the size of the guest's memory, and TouchedBytes what of it
	// the host has given to the guest so far. The rest reads as zeroes.
	MemoryBytes  uint64 `json:"memory_bytes"`
	TouchedBytes uint64 `json:"touched_bytes"`

	Classes []Class `json:"classes"` // of all memory
	Zones   []Zone  `json:"zones"`
	// FoundUS and CountedUS are how long it took to find the kernel, and then to
	// count, in microseconds.
	FoundUS   int64 `json:"found_us"`
	CountedUS int64 `json:"counted_us"`
}

// Taker takes censuses of one guest after the other. Its methods may be called
// from any goroutine; one census is taken at a time. The zero value is usable.
type Taker struct {
	mu sync.Mutex
}

// Take takes a census of a kernel's memory. It returns an error when the memory is
// not as that kernel has it, and when ctx ends. FoundUS is the caller's.
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
