// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// Block is a free block of the buddy allocator: 1<<Order pages from PFN on,
// aligned to its size.
type Block struct {
	PFN   uint64
	Order uint8
	// Evidence are the frames that hold the struct page of the block's first page;
	// both are equal if it is one frame. This struct page alone says that the
	// whole block is free: the kernel writes to it when it takes any part of the
	// block (mm/page_alloc.c, del_page_from_free_list).
	Evidence [2]uint64
}

// ScanOptions say what a scan has to find.
type ScanOptions struct {
	// Workers is the number of goroutines; 0 means one.
	Workers int
	// Free is called with the free blocks, sorted by address, for one section of
	// memory at a time. The slice is valid until Free returns. An error ends the
	// scan. It is not called concurrently.
	Free func([]Block) error
	// FreeOnly does not classify and count pages that are not free. It is faster.
	FreeOnly bool
	// Each is called for each page, or for each free block with its n pages.
	// Workers call it concurrently. It makes the scan slow.
	Each func(pfn, n uint64, page pages.Page)
}

// part is the result of scanning one span.
type part struct {
	blocks []Block
	err    error
}

// Scan reads the struct pages of all memory. A guest that runs changes them
// meanwhile. Then the counts are approximate, and the caller has to check the
// evidence of each block. The error wraps [layout.ErrUnknown] where memory is not
// laid out as expected.
func (k *Kernel) Scan(ctx context.Context, o ScanOptions) (*Census, error) {
	zones, err := k.Zones()
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	table, err := k.newZoneTable(zones)
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	spans, err := k.spans()
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	workers := max(1, min(o.Workers, len(spans)))
	var (
		group errgroup.Group
		next  atomic.Int64
		parts = make([]chan part, len(spans))
		// ahead bounds the spans that are scanned before passOn takes their parts.
		ahead    = make(chan struct{}, 2*workers)
		buffers  = make(chan []Block, 3*workers) // for reuse
		scanners = make([]*scanner, workers)
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range parts {
		parts[i] = make(chan part, 1)
	}
	for i := range workers {
		s := newScanner(k, zones, table, o)
		scanners[i] = s
		group.Go(func() error {
			for {
				select {
				case ahead <- struct{}{}:
				case <-ctx.Done():
					return nil
				}
				n := int(next.Add(1)) - 1
				if n >= len(spans) {
					return nil
				}
				select {
				case s.blocks = <-buffers:
				default:
				}
				err := s.scan(spans[n])
				parts[n] <- part{s.blocks, err}
				s.blocks = nil
			}
		})
	}
	err = passOn(ctx, parts, ahead, buffers, o.Free)
	cancel()
	_ = group.Wait() // returns no error
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	census := newCensus(zones)
	for _, s := range scanners {
		census.collect(s.tally, s.found)
	}
	return census, nil
}

// passOn calls free with the blocks of each part, in order.
func passOn(ctx context.Context, parts []chan part, ahead <-chan struct{}, buffers chan<- []Block,
	free func([]Block) error) error {
	for _, c := range parts {
		var p part
		select {
		case p = <-c:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		<-ahead
		if p.err != nil {
			return p.err
		}
		if free != nil && len(p.blocks) > 0 {
			if err := free(p.blocks); err != nil {
				return err
			}
		}
		select {
		case buffers <- p.blocks[:0]:
		default:
		}
	}
	return nil
}

// span is a run of pages that are RAM and have struct pages.
type span struct{ start, end uint64 }

// spans returns the parts of the sections that are RAM, in order.
func (k *Kernel) spans() ([]span, error) {
	sections, err := k.sections()
	if err != nil {
		return nil, err
	}
	var found []span
	regions := k.mem.Regions()
	for _, s := range sections {
		for len(regions) > 0 && regions[0].End()>>pageShift <= s.start {
			regions = regions[1:]
		}
		for _, r := range regions {
			start := max(s.start, (r.GPA+1<<pageShift-1)>>pageShift)
			end := min(s.end, r.End()>>pageShift)
			if r.GPA>>pageShift >= s.end {
				break
			}
			if start < end {
				found = append(found, span{start, end})
			}
		}
	}
	return found, nil
}
