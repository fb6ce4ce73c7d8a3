// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// target is a performance target, and whether the figures reach it.
type target struct {
	Text string
	Seen string
	Met  bool
}

// targets checks the targets for which there are rows. emulated says whether the guests'
// processors were emulated.
func targets(rows []row, emulated bool) []target {
	var ts []target
	add := func(met bool, text, seen string, args ...any) {
		ts = append(ts, target{Text: text, Seen: fmt.Sprintf(seen, args...), Met: met})
	}
	plain := func(l load, m method) (*row, bool) {
		return find(rows, benchCase{l, m, unlimited, stream})
	}
	if ours, ok := plain(noLoad, fbpp); ok {
		if hint, ok := plain(noLoad, freePageHint); ok {
			bytes := hint.Transferred.Min / ours.Transferred.Median
			time := hint.Total.Min / ours.Total.Median
			add(bytes >= 8, "no load: at most an eighth of the bytes of free-page-hint's best run",
				"%.1f times fewer", bytes)
			add(time >= 10, "no load: at most a tenth of the time of free-page-hint's best run",
				"%.1f times shorter", time)
		}
	}
	for _, l := range allLoads() {
		if ours, ok := plain(l, fbpp); ok && ours.AboveFloor.N > 0 {
			over := ours.AboveFloor.Median
			again := ours.Repeated.Median * vm.PageCost / ours.Floor.Median
			add(over <= 0.05, fmt.Sprintf("%s: within 5 %% of the floor", l),
				"%+.1f %%, of which pages sent again as the guest wrote to them: %.1f %%", over*100, again*100)
		}
	}
	for _, l := range allLoads() {
		agent, asked := plain(l, fbpp)
		if ours, ok := plain(l, introspect); ok && asked {
			share := ours.Transferred.Median/agent.Transferred.Median - 1
			add(share <= 0.03, fmt.Sprintf("%s, introspect: within 3 %% of the agent's bytes", l),
				"%+.1f %%", share*100)
		}
	}
	if ours, ok := plain(noLoad, introspect); ok && len(ours.hints) > 0 {
		took := ours.exchange(func(r *record) int64 { return r.Exchange.Exchange }).Median / 1000
		add(took <= 50, "no load, introspect: an exchange of 50 ms", "%.1f ms", took)
	}
	if saved := saving(plain, introspect); len(saved) > 0 {
		mean := 0.0
		for _, share := range saved {
			mean += share / float64(len(saved))
		}
		add(mean >= 0.72, "introspect: 72 % less total time than stock, as a mean over the loads",
			"%.0f %% less (%.0f to %.0f %%)", mean*100, slices.Min(saved)*100, slices.Max(saved)*100)
	}
	downtimeTargets(rows, add)
	postcopyTargets(rows, add)
	handOverTargets(rows, add)
	if ours, ok := plain(noLoad, fbpp); ok && len(ours.hints) > 0 {
		share := ours.skippedShare()
		add(share >= 0.995, "no load: 99.5 % of the free memory skipped", "%.1f %%", share*100)
	}
	if ours, ok := plain(fresh, fbpp); ok {
		if theirs, ok := plain(fresh, stock); ok {
			add(ours.Total.Median <= theirs.Total.Median, "fresh: not slower than stock",
				"%.0f ms against %.0f ms", ours.Total.Median, theirs.Total.Median)
		}
	}
	if ours, ok := plain(fragmented, fbpp); ok && len(ours.hints) > 0 {
		share := ours.skippedShare()
		add(share >= 0.95, "fragmented: 95 % of the free memory skipped", "%.1f %%", share*100)
		h := ours.longestHold(emulated)
		const text = "fragmented: interrupts off for at most 1 ms at a time, at the pace of hardware"
		add(h.scaled() <= 1000, text, "%s", h)
	}
	return ts
}

// skippedShare is the least share of the guest's free memory that a round skipped.
func (r *row) skippedShare() float64 {
	share := math.Inf(1)
	for _, rec := range r.hints {
		share = min(share, float64(rec.Skipped)/float64(rec.FreePages))
	}
	return share
}

// saving returns by which share of stock's total time a method is shorter, for each load.
func saving(plain func(load, method) (*row, bool), m method) []float64 {
	var all []float64
	for _, l := range allLoads() {
		theirs, known := plain(l, stock)
		if ours, ok := plain(l, m); ok && known {
			all = append(all, 1-ours.Total.Median/theirs.Total.Median)
		}
	}
	return all
}

// downtimeTargets compares the downtime of each load and link with that of the best peer.
func downtimeTargets(rows []row, add func(met bool, text, seen string, args ...any)) {
	for i := range rows {
		ours := &rows[i]
		if ours.Method != fbpp || ours.Transport != stream || ours.Total.N == 0 {
			continue
		}
		best, name := math.Inf(1), method("")
		for _, m := range []method{stock, balloon1, balloon4, freePageHint, freeReporting} {
			theirs, ok := find(rows, benchCase{ours.Load, m, ours.Link, stream})
			if ok && theirs.Downtime.Median < best {
				best, name = theirs.Downtime.Median, m
			}
		}
		if name != "" {
			add(ours.Downtime.Median <= best,
				fmt.Sprintf("%s, %s: the downtime of the best peer", ours.Load, ours.Link),
				"%.0f ms against %.0f ms (%s)", ours.Downtime.Median, best, name)
		}
	}
}

// hold is the longest time that a guest had interrupts off for the walk.
type hold struct {
	us       float64 // by the guest's clock
	block    float64 // ns that the walk took for one free block
	emulated bool
}

// nativeBlock is what one free block costs the walk on a real processor with
// cold caches, in ns: docs/design.md, section 3.
const nativeBlock = 152

func (r *row) longestHold(emulated bool) hold {
	h := hold{emulated: emulated}
	var walk, blocks float64
	for _, rec := range r.hints {
		h.us = max(h.us, float64(rec.Exchange.Detail(vm.DetailHoldMax)))
		walk += float64(rec.Exchange.Phase(source.PhaseWalk)) * 1000
		blocks += float64(rec.FreeBlocks)
	}
	h.block = walk / max(blocks, 1)
	return h
}

// scaled is how long a real processor would take for the blocks of the hold, in µs.
func (h hold) scaled() float64 {
	if !h.emulated || h.block <= nativeBlock {
		return h.us
	}
	return h.us * nativeBlock / h.block
}

// String implements fmt.Stringer.
func (h hold) String() string {
	if !h.emulated {
		return fmt.Sprintf("%.2f ms", h.us/1000)
	}
	return fmt.Sprintf("%.2f ms by the guest's clock, at %.0f ns for a free block;"+
		" at %d ns, those blocks take %.2f ms",
		h.us/1000, h.block, nativeBlock, h.scaled()/1000)
}
