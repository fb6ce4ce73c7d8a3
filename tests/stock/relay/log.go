// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// logs are the log that the backend marks and the one that the frontend reads.
type logs struct {
	own, theirs *vhosttest.Log
	union       map[uint64]bool // pages marked since logging was switched on
}

// newLogs makes a log for the backend, as large as the frontend's log in fd. It owns fd.
func newLogs(v wire.Log, fd int) (*logs, error) {
	theirs, err := vhosttest.OpenLog(v, fd)
	if err != nil {
		return nil, err
	}
	// As large as theirs: a bit for each page below the end.
	own, err := vhosttest.NewLog(v.Size*8*vhosttest.PageSize - 1)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	return &logs{own: own, theirs: theirs, union: make(map[uint64]bool)}, nil
}

func (l *logs) close() {
	if l != nil {
		l.own.Close()
		l.theirs.Close()
	}
}

// harvest moves the backend's marks to the frontend's log. The caller holds r.mu.
func (r *Relay) harvest() {
	if r.logs == nil {
		return
	}
	pages := r.logs.own.Harvest()
	r.logs.theirs.Mark(pages)
	for _, p := range pages {
		r.logs.union[p] = true
	}
}

// harvestAll harvests the marks of a running device until ctx ends. It leaves those of a
// stopped device out, because such a device must not mark any page.
func (r *Relay) harvestAll(ctx context.Context) error {
	tick := time.NewTicker(harvestInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.mu.Lock()
			if len(r.started) > 0 {
				r.harvest()
			}
			r.mu.Unlock()
		}
	}
}

// Report compares what the backend wrote with what it marked.
type Report struct {
	// Written are the pages that it wrote while logging was on, Missing those
	// of them that it did not mark: numbers of guest physical pages.
	Written, Missing []uint64
}

// Report returns the comparison for the last time that logging was switched on.
// The device must be stopped.
func (r *Relay) Report() (Report, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.failed != nil:
		return Report{}, r.failed
	case !r.begun:
		return Report{}, errors.New("compare with the log: logging was never on")
	case len(r.started) > 0:
		return Report{}, errors.New("compare with the log: the device is not stopped")
	}
	var rep Report
	for _, g := range r.regions {
		written, err := r.watch.Written(g.inode)
		if err != nil {
			return Report{}, fmt.Errorf("compare with the log: %w", err)
		}
		for _, off := range written {
			if off < g.MmapOffset || off-g.MmapOffset >= g.Size {
				continue // the page is of another region in the same file
			}
			page := (g.GuestAddr + off - g.MmapOffset) / vhosttest.PageSize
			rep.Written = append(rep.Written, page)
			if !r.logs.union[page] {
				rep.Missing = append(rep.Missing, page)
			}
		}
	}
	slices.Sort(rep.Written)
	slices.Sort(rep.Missing)
	return rep, nil
}
