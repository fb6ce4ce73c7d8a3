// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// target is a promise, and whether the figures keep it.
type target struct {
	Text string
	Seen string
	Met  bool
}

// targets judges what can be judged from the rows that there are.
func targets(rows []row) []target {
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
			add(bytes >= 8, "no load: at most an eighth of the bytes of free-page-hint's best run", "%.1f times fewer", bytes)
			add(time >= 10, "no load: at most a tenth of the time of free-page-hint's best run", "%.1f times shorter", time)
		}
	}
	for _, l := range allLoads() {
		// What a guest writes meanwhile has to be sent again, by every method.
		if ours, ok := plain(l, fbpp); ok && ours.AboveFloor.N > 0 && l != churning {
			over := ours.AboveFloor.Median
			add(over <= 0.05, fmt.Sprintf("%s: within 5 %% of the floor", l), "%+.1f %%", over*100)
		}
	}
	if ours, ok := plain(fresh, fbpp); ok {
		if theirs, ok := plain(fresh, stock); ok {
			add(ours.Total.Median <= theirs.Total.Median, "fresh: not slower than stock", "%.0f ms against %.0f ms",
				ours.Total.Median, theirs.Total.Median)
		}
	}
	if ours, ok := plain(fragmented, fbpp); ok && len(ours.hints) > 0 {
		last := ours.hints[len(ours.hints)-1]
		share := float64(last.Skipped) / float64(last.FreePages)
		add(share >= 0.95, "fragmented: 95 % of the free memory skipped", "%.1f %%", share*100)
	}
	return ts
}
