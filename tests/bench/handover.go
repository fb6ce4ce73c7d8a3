// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// newPool returns the name of a file for memory that both sides reach, and what removes it.
// It is in shared memory: another host's would be farther away.
func (c benchCase) newPool() (path string, remove func(), err error) {
	if !c.Transport.handsOver() {
		return "", func() {}, nil
	}
	dir, err := os.MkdirTemp("/dev/shm", "fbpp-bench-")
	if err != nil {
		return "", nil, fmt.Errorf("make a pool: %w", err)
	}
	return filepath.Join(dir, "pool"), func() { os.RemoveAll(dir) }, nil
}

// memory is the backend of one side's memory; nil is the usual one.
func (c benchCase) memory(pool string, s sizes, destination bool) []string {
	switch {
	case !c.Transport.handsOver():
		return nil
	case destination && c.Transport == arrival:
		return []string{fmt.Sprintf(
			"memory-backend-memfd,id=ram,size=%dM,share=on,pool=%s", s.Guest, pool)}
	}
	return []string{fmt.Sprintf(
		"memory-backend-file,id=ram,size=%dM,share=on,mem-path=%s,lease=on", s.Guest, pool)}
}

// awaitLocal waits until all memory has arrived at the destination, and takes over how it did.
func (r *record) awaitLocal(ctx context.Context, destination *vm.VM, began time.Time) error {
	if r.Transport != arrival {
		return nil
	}
	for {
		there, err := destination.QueryMigrate(ctx)
		if err != nil {
			return fmt.Errorf("wait for memory to arrive: %w", err)
		}
		if there.ErrorDesc != "" {
			return fmt.Errorf("wait for memory to arrive: %s", there.ErrorDesc)
		}
		if there.Status == "completed" && there.Load != nil {
			r.LocalMS = time.Since(began).Milliseconds()
			r.Requests, r.Arrived = there.Load.Faults, there.Load.Read
			r.setStalls(there)
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for memory to arrive: %w", ctx.Err())
		}
	}
}

// handOverTargets judges the hand-over beside the other ways over the same link.
func handOverTargets(rows []row, add func(met bool, text, seen string, args ...any)) {
	for _, l := range postcopyLoads() {
		ours, ok := find(rows, benchCase{l, stock, gigabit, arrival})
		if !ok {
			continue
		}
		best, name := ours, ""
		for i := range rows {
			r := &rows[i]
			if r.Load == l && r.Link == gigabit && !r.Transport.handsOver() && r.Total.N > 0 &&
				(name == "" || r.Lead.Median < best.Lead.Median) {
				best, name = r, string(r.Transport)
			}
		}
		if name != "" {
			add(ours.Lead.Median <= best.Lead.Median,
				fmt.Sprintf("%s, hand-over: runs at the destination as early as the best of the others", l),
				"%.0f ms against %.0f ms (%s)", ours.Lead.Median, best.Lead.Median, name)
		}
		theirs, ok := find(rows, benchCase{l, stock, gigabit, postcopy})
		if ok && ours.LongestStall.Median > 0 && theirs.LongestStall.Median > 0 {
			share := theirs.perRequest() / ours.perRequest()
			add(share >= 20, fmt.Sprintf("%s, hand-over: a local fault 20 times cheaper than postcopy's", l),
				"%.1f times: %.0f µs against %.0f µs", share, ours.perRequest(), theirs.perRequest())
		}
	}
}

// perRequest is how long the processor that waited longest stood still, for each page that anybody
// asked for, in µs. It compares ways, and is less than what one page takes.
func (r *row) perRequest() float64 {
	return r.LongestStall.Median * 1000 / max(r.Requests.Median, 1)
}
