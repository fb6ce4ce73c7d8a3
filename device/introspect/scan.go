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
	// Free is called with the free blocks, sorted by address, for 128 MiB of memory
	// at a time, or less. The slice is valid until Free returns. An error ends the
	// scan. It is not called concurrently.
	Free func([]Block) error
	// Order is called as Free is, with the runs of pages that are hot or cold, sorted by
	// address. It cannot be used with FreeOnly.
	Order func([]Run) error
	// CPULists is called after Free, with each list of free pages that a CPU keeps, in the
	// list's order. The evidence of a block is then more than its own: its struct page, those
	// of all blocks before it on the list or those of all after it must not have been written.
	CPULists func([]Block) error
	// FreeOnly does not classify and count pages that are not free. It is faster.
	FreeOnly bool
	// Each is called for each page, or for each free block with its n pages.
	// Workers call it concurrently. It makes the scan slow.
	Each func(pfn, n uint64, page pages.Page)
}

// Run is a run of pages of one heat.
type Run struct {
	PFN   uint64
	Pages uint32
	Heat  pages.Heat // not Warm
}

// finds are what a scan passes on of one span.
type finds struct {
	blocks []Block
	runs   []Run
}

// addRun adds n pages of one heat.
func (f *finds) addRun(pfn, n uint64, heat pages.Heat) {
	if heat == pages.Warm {
		return
	}
	if last := len(f.runs) - 1; last >= 0 {
		r := &f.runs[last]
		if r.Heat == heat && r.PFN+uint64(r.Pages) == pfn && n <= 1<<32-1-uint64(r.Pages) {
			r.Pages += uint32(n)
			return
		}
	}
	f.runs = append(f.runs, Run{pfn, uint32(n), heat})
}

// part is the result of scanning one span.
type part struct {
	finds
	err error
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
		buffers  = make(chan finds, 3*workers) // for reuse
		scanners = make([]*scanner, workers)
	)
	running, cancel := context.WithCancel(ctx)
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
				case <-running.Done():
					return nil
				}
				n := int(next.Add(1)) - 1
				if n >= len(spans) {
					return nil
				}
				select {
				case s.finds = <-buffers:
				default:
				}
				err := s.scan(running, spans[n])
				parts[n] <- part{s.finds, err}
				s.finds = finds{}
			}
		})
	}
	err = o.passOn(running, parts, ahead, buffers)
	cancel()
	_ = group.Wait() // returns no error
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	census := newCensus(zones)
	for _, s := range scanners {
		census.collect(s.tally, s.found)
	}
	if o.CPULists != nil {
		if census.CPULists, err = k.scanCPULists(ctx, zones, o.CPULists); err != nil {
			return nil, fmt.Errorf("scan: %w", err)
		}
	}
	return census, nil
}

// passOn calls Free and Order with what each part has, in order.
func (o *ScanOptions) passOn(
	ctx context.Context, parts []chan part, ahead <-chan struct{}, buffers chan<- finds,
) error {
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
		if o.Free != nil && len(p.blocks) > 0 {
			if err := o.Free(p.blocks); err != nil {
				return err
			}
		}
		if o.Order != nil && len(p.runs) > 0 {
			if err := o.Order(p.runs); err != nil {
				return err
			}
		}
		select {
		case buffers <- finds{p.blocks[:0], p.runs[:0]}:
		default:
		}
	}
	return nil
}

// span is a run of pages that are RAM and have struct pages.
type span struct{ start, end uint64 }

// maxSpan bounds a span, in pages, and with it what is found in one. It is the size of
// x86-64's sections, 128 MiB. No free block crosses a multiple of it.
const maxSpan = 1 << 15

// spans returns the parts of the sections that are RAM, in order. The guest says how
// large a section is.
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
			for start < end {
				next := min(end, (start|(maxSpan-1))+1)
				found = append(found, span{start, next})
				start = next
			}
		}
	}
	return found, nil
}
