// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// Sizes of a region in pages. The largest is as long as two huge pages, so that it
// contains an aligned one wherever it begins. It is also more than the per-CPU lists
// hold, so that its pages reach the buddy lists when it is freed.
const (
	minRegionPages = 16
	maxRegionPages = 1024
	minWorkerPages = 4 * minRegionPages
)

// region is one mapping and what each of its pages holds.
type region struct {
	mem   []byte
	pages []content
}

func (r *region) page(i int) []byte { return r.mem[i*PageSize : (i+1)*PageSize] }

// worker allocates and frees its own regions. It may be used only by its goroutine, or
// by one that holds Pool.turn for writing.
type worker struct {
	pool    *Pool
	limit   int // pages
	rand    *rand.Rand
	owner   uint64 // last name that was given to a page
	live    int    // pages mapped
	done    int    // pages written or verified in the last step
	regions []*region
}

// step does one random operation. A worker keeps between a quarter of its limit
// and all of it mapped.
func (w *worker) step() error {
	if w.live < w.limit/2 {
		return w.allocate()
	}
	i := w.rand.IntN(len(w.regions))
	r := w.regions[i]
	switch p := w.rand.IntN(100); {
	case p < 25 && w.live < w.limit-minRegionPages:
		return w.allocate()
	case p < 50:
		return w.free(i)
	case p < 60:
		return w.drop(r)
	case p < 90:
		w.rewrite(r)
	default:
		w.verify(r)
	}
	return nil
}

// allocate maps a region and writes every page of it. Half of the regions do without
// huge pages, so that single pages are taken off the buddy lists, too.
func (w *worker) allocate() error {
	n := minRegionPages << w.rand.IntN(7) // 16 to maxRegionPages
	n = min(n, w.limit/4, w.limit-w.live)
	mem, err := mapPrivate(n * PageSize)
	if err != nil {
		return err
	}
	if w.rand.IntN(2) == 0 {
		// EINVAL: the kernel has no transparent huge pages.
		if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
			return errors.Join(fmt.Errorf("refuse huge pages: %w", err), unix.Munmap(mem))
		}
	}
	r := &region{mem: mem, pages: make([]content, n)}
	w.regions = append(w.regions, r)
	w.live += n
	w.pool.live.Add(int64(n))
	for i := range r.pages {
		w.write(r, i)
	}
	return nil
}

// free verifies a region and unmaps it.
func (w *worker) free(i int) error {
	r := w.regions[i]
	w.verify(r)
	last := len(w.regions) - 1
	w.regions[i] = w.regions[last]
	w.regions = w.regions[:last]
	w.live -= len(r.pages)
	w.pool.live.Add(-int64(len(r.pages)))
	if err := unix.Munmap(r.mem); err != nil {
		return fmt.Errorf("unmap: %w", err)
	}
	return nil
}

// drop verifies some pages of a region and gives them back to the kernel. Of these it
// reads some, which have to be zero, and writes others.
func (w *worker) drop(r *region) error {
	first, n := w.wholeSpan(r)
	for i := first; i < first+n; i++ {
		w.verifyPage(r, i)
	}
	if err := unix.Madvise(r.mem[first*PageSize:(first+n)*PageSize], unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("drop %d pages: %w", n, err)
	}
	for i := first; i < first+n; i++ {
		r.pages[i] = content{}
		switch w.rand.IntN(3) {
		case 0:
			w.verifyPage(r, i)
		case 1:
			w.write(r, i)
		}
	}
	return nil
}

// rewrite verifies some pages and writes them anew.
func (w *worker) rewrite(r *region) {
	first, n := w.span(r)
	for i := first; i < first+n; i++ {
		w.verifyPage(r, i)
		w.write(r, i)
	}
}

// span picks at most 64 neighbouring pages of a region.
func (w *worker) span(r *region) (first, n int) {
	first = w.rand.IntN(len(r.pages))
	return first, 1 + w.rand.IntN(min(64, len(r.pages)-first))
}

// wholeSpan is span, widened to whole base pages.
func (w *worker) wholeSpan(r *region) (first, n int) {
	first, n = w.span(r)
	per := perBase()
	end := min((first+n+per-1)/per*per, len(r.pages))
	first -= first % per
	return first, end - first
}

// write writes a page's next generation, or its first.
func (w *worker) write(r *region, i int) {
	c := &r.pages[i]
	if c.owner == 0 {
		w.owner++
		c.owner = w.owner
	}
	c.generation++
	c.write(r.page(i))
	w.counted()
}

// counted notes that a page was written or verified.
func (w *worker) counted() {
	w.done++
	w.pool.count.Add(1)
}

func (w *worker) verify(r *region) {
	for i := range r.pages {
		w.verifyPage(r, i)
	}
}

// verifyPage records a mismatch. It then accepts the page's content, so that one loss
// is not counted twice.
func (w *worker) verifyPage(r *region, i int) {
	page, want := r.page(i), r.pages[i]
	if offset := want.check(page); offset >= 0 {
		w.pool.mismatch(newMismatch(page, want, offset))
		w.write(r, i)
	}
	w.counted()
}

func (w *worker) verifyAll() (pages uint64) {
	for _, r := range w.regions {
		w.verify(r)
		pages += uint64(len(r.pages))
	}
	return pages
}

func (w *worker) unmapAll() error {
	var errs []error
	for _, r := range w.regions {
		errs = append(errs, unix.Munmap(r.mem))
	}
	w.regions = nil
	return errors.Join(errs...)
}
