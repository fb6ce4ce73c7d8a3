// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// leadTime starts to wait for the guest to run at the destination. The function that it
// returns ends the wait, and gives the time since the start in milliseconds.
func leadTime(ctx context.Context, destination *vm.VM) func() (int64, error) {
	type arrival struct {
		ms  int64
		err error
	}
	began, arrived := time.Now(), make(chan arrival, 1)
	go func() {
		err := destination.Arrive(ctx)
		arrived <- arrival{time.Since(began).Milliseconds(), err}
	}()
	return func() (int64, error) {
		a := <-arrived
		return a.ms, a.err
	}
}

// firstPass is the number of QEMU's dirty syncs when the first pass is over: one as the
// migration begins, and one after the pass.
const firstPass = 2

// switchover returns what switches the migration to postcopy, for use as its progress.
// In a hybrid migration QEMU does that by itself.
func (c benchCase) switchover(ctx context.Context, source *vm.VM) func(*vm.Migration) {
	if c.Transport != postcopy && c.Transport != postcopyLater {
		return nil
	}
	switched := false
	return func(m *vm.Migration) {
		if switched || m.Status != "active" ||
			c.Transport == postcopyLater && m.RAM.SyncCount < firstPass {
			return
		}
		// It fails where the migration has just ended. The figures show that.
		switched = source.Execute(ctx, "migrate-start-postcopy", nil, nil) == nil
	}
}

// setPostcopy takes over how a migration fared after the switchover.
func (r *record) setPostcopy(ctx context.Context, m *vm.Migration, destination *vm.VM) error {
	if !r.Transport.postcopies() {
		return nil
	}
	if r.Transport == hybrid {
		if m.Hints == nil || m.Hints.Hybrid != "switched" && m.Hints.Hybrid != notNeeded {
			return fmt.Errorf("the hybrid migration is an ordinary one: %+v", m.Hints)
		}
	}
	r.LocalMS = m.TotalTime
	if r.Transport.handsOver() {
		return nil // see awaitLocal
	}
	there, err := destination.QueryMigrate(ctx)
	if err != nil {
		return fmt.Errorf("ask the destination how long it waited for pages: %w", err)
	}
	r.Requests = m.RAM.Requests
	r.setStalls(there)
	return nil
}

// setStalls takes over how long a destination's processors waited for pages.
func (r *record) setStalls(there *vm.Migration) {
	r.StallMS = there.Blocktime
	if len(there.VCPUBlocktime) > 0 {
		r.LongestStallMS = slices.Max(there.VCPUBlocktime)
	}
}

// notNeeded is what a hybrid migration says of itself where all was sent before it could switch.
const notNeeded = "not-needed"

// way names how a row's migrations went.
func (r *row) way() string {
	alone := 0
	for _, rec := range r.hints {
		if rec.Exchange.Hybrid == notNeeded {
			alone++
		}
	}
	if alone == 0 {
		return string(r.Transport)
	}
	return fmt.Sprintf("%s (%d of %d by precopy alone)", r.Transport, alone, r.Total.N)
}

// postcopyTable compares ways to move a guest before all of its memory with each other and
// with precopy.
func (r *report) postcopyTable() table {
	t := table{Title: "Before all memory has moved: postcopy, hybrid and hand-over", Head: []string{
		"load", "method", "way", "lead", "down", "requests", "all processors stalled",
		"one processor stalled", "transferred", "total", "all is local", "rounds"}}
	for _, row := range r.Rows {
		if row.Total.N == 0 || !r.comparesPostcopy(row.Load, row.Link) {
			continue
		}
		cells := []string{string(row.Load), string(row.Method), row.way(), ms(row.Lead),
			ms(row.Downtime), "", "", "", mib(row.Transferred), ms(row.Total), ms(row.Total),
			fmt.Sprint(row.Total.N)}
		if row.Transport.postcopies() {
			cells[5], cells[6], cells[7] = count(row.Requests), ms(row.Stall), ms(row.LongestStall)
			cells[10] = ms(row.Local)
			if row.Transport == handOver {
				cells[10] = "never"
			}
		} else if row.Transport != stream {
			continue
		}
		t.Rows = append(t.Rows, cells)
	}
	slices.SortStableFunc(t.Rows, func(a, b []string) int {
		return slices.Index(allLoads(), load(a[0])) - slices.Index(allLoads(), load(b[0]))
	})
	return t
}

// comparesPostcopy tells whether a load has figures of postcopy over a link.
func (r *report) comparesPostcopy(l load, over link) bool {
	return slices.ContainsFunc(r.Rows, func(o row) bool {
		return o.Load == l && o.Link == over && o.Transport.postcopies() && o.Total.N > 0
	})
}

// postcopyTargets judges the hybrid beside stock's ways over the same link.
func postcopyTargets(rows []row, add func(met bool, text, seen string, args ...any)) {
	for _, l := range postcopyLoads() {
		ours, ok := find(rows, benchCase{l, fbppSample, gigabit, hybrid})
		if !ok {
			continue
		}
		if theirs, ok := find(rows, benchCase{l, stock, gigabit, postcopy}); ok {
			share := theirs.Requests.Median / max(ours.Requests.Median, 1)
			add(share >= 10, fmt.Sprintf("%s, hybrid: a tenth of stock postcopy's requests", l),
				"%.1f times fewer: %.0f, not %.0f", share, ours.Requests.Median, theirs.Requests.Median)
		}
		if theirs, ok := find(rows, benchCase{l, stock, gigabit, stream}); ok {
			add(ours.Lead.Median <= theirs.Lead.Median/5,
				fmt.Sprintf("%s, hybrid: runs at the destination in a fifth of stock's time", l),
				"%.0f ms against %.0f ms", ours.Lead.Median, theirs.Lead.Median)
		}
	}
}
