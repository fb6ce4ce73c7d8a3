// SPDX-License-Identifier: Apache-2.0

// Package pool simulates memory that arrives from a pool while its guests run, at one host or at
// many that share the pool: docs/pool.md.
package pool

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// PageSize is that of a page, and chunkPages is how many the background brings at once: CHUNK in
// the series' fast-snapshot-load.c.
const (
	PageSize   = 4096
	chunkPages = 64
)

// Guest is what a guest has and does.
type Guest struct {
	// Pages are those that have content, and have to arrive.
	Pages int
	// Every is the time between two touches of memory, while no page is missing.
	Every time.Duration
	// Hot is the share of the pages that HotTouches, a share of the touches, go to. They lie
	// scattered. The other touches go anywhere.
	Hot, HotTouches float64
}

// Path is what a page passes on its way. Rates are in bytes per second; 0 is no limit.
type Path struct {
	// Fault is how long a touch waits for a missing page, without the transfer.
	Fault time.Duration
	// Copy is what the background of one host copies and places.
	Copy float64
	// Link is what one host reads from the pool, and Pool what all of them do together.
	Link, Pool float64
	// Bound is max-postcopy-bandwidth.
	Bound float64
}

// Result is how it went at one host.
type Result struct {
	Local   time.Duration // until all pages have arrived
	Faults  int           // touches of a missing page
	Waited  time.Duration // for them
	Touches int
}

// host is one that its guest's memory arrives at.
type host struct {
	guest   Guest
	path    Path
	random  *rand.Rand
	arrived []bool
	missing int
	cursor  int // of the background
	result  Result

	now    time.Duration // of its next event
	touch  time.Duration
	chunk  time.Duration // when the background has brought what it brings
	inHand []int
}

// Arrive simulates hosts that all begin at the same time. It returns what came of each.
func Arrive(hosts int, g Guest, p Path, seed uint64) []Result {
	var q queue
	all := make([]*host, hosts)
	for i := range all {
		h := &host{guest: g, path: p, random: rand.New(rand.NewPCG(seed, uint64(i))),
			arrived: make([]bool, g.Pages), missing: g.Pages, touch: g.Every}
		h.next(hosts)
		all[i] = h
		q = append(q, h)
	}
	heap.Init(&q)
	for len(q) > 0 {
		h := q[0]
		h.step(len(q))
		if h.missing == 0 {
			h.result.Local = h.now
			heap.Pop(&q)
			continue
		}
		h.now = min(h.touch, h.chunk)
		heap.Fix(&q, 0)
	}
	results := make([]Result, hosts)
	for i, h := range all {
		results[i] = h.result
	}
	return results
}

// rate is what one of so many hosts reads from the pool.
func (p Path) rate(active int) float64 {
	rate := p.Link
	if share := p.Pool / float64(active); p.Pool > 0 && (rate == 0 || share < rate) {
		rate = share
	}
	return rate
}

// background is what its background brings.
func (p Path) background(active int) float64 {
	rate := p.rate(active)
	for _, limit := range []float64{p.Copy, p.Bound} {
		if limit > 0 && (rate == 0 || limit < rate) {
			rate = limit
		}
	}
	return rate
}

// takes is how long so many bytes take at a rate.
func takes(bytes int, rate float64) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(bytes) / rate * float64(time.Second))
}

// step has the next event of the host happen.
func (h *host) step(active int) {
	if h.chunk <= h.touch {
		for _, page := range h.inHand {
			h.arrive(page)
		}
		if h.missing > 0 {
			h.next(active)
		}
		return
	}
	h.result.Touches++
	page := h.pick()
	h.touch += h.guest.Every
	if h.arrived[page] {
		return
	}
	wait := h.path.Fault + takes(PageSize, h.path.rate(active))
	h.result.Faults++
	h.result.Waited += wait
	h.touch += wait
	h.arrive(page)
	h.cursor = page // what is beside it is likely to be needed next
}

func (h *host) pick() int {
	pages := len(h.arrived)
	if hot := int(h.guest.Hot * float64(pages)); hot > 0 && h.random.Float64() < h.guest.HotTouches {
		return h.random.IntN(hot) * pages / hot
	}
	return h.random.IntN(pages)
}

func (h *host) arrive(page int) {
	if !h.arrived[page] {
		h.arrived[page] = true
		h.missing--
	}
}

// next has the background claim the next pages that are missing, in a row.
func (h *host) next(active int) {
	for h.arrived[h.cursor] {
		h.cursor = (h.cursor + 1) % len(h.arrived)
	}
	h.inHand = h.inHand[:0]
	for h.cursor < len(h.arrived) && !h.arrived[h.cursor] && len(h.inHand) < chunkPages {
		h.inHand = append(h.inHand, h.cursor)
		h.cursor++
	}
	h.cursor %= len(h.arrived)
	h.chunk = h.now + takes(len(h.inHand)*PageSize, h.path.background(active))
	h.now = min(h.touch, h.chunk)
}

// queue has the hosts in the order of their next events.
type queue []*host

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].now < q[j].now }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(*host)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
