// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"slices"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

// rollBackLocked leaves no chain outstanding: it makes the chains popped last available again, and
// with complete it completes the others with nothing written.
func (q *Queue) rollBackLocked(complete bool) {
	if !complete {
		q.flight = nil // it stays as it is, for the next backend
	}
	if err := shm.Guard(func() error {
		for c := q.outstanding.last; c != nil && c.seq == q.seq-1 && !c.resubmit; c = q.outstanding.last {
			q.unfetchLocked(c)
		}
		return nil
	}); err != nil {
		_ = q.breakLocked(err)
	}
	q.pushed = slices.DeleteFunc(q.pushed, func(c *Chain) bool { return c.seq >= q.seq })
	if complete && q.mapped && q.broken == nil {
		q.leaveLocked()
	}
	if q.flight != nil {
		// The frontend knows the base now, and another driver may start the ring
		// next.
		if err := shm.Guard(func() error { q.flight.leave(); return nil }); err != nil {
			q.lg.Warn("cannot leave the inflight memory", zap.Error(err))
		}
	}
	q.outstanding, q.pushed = chainList{}, nil
}

// leaveLocked leaves the ring in the state that its next start expects.
func (q *Queue) leaveLocked() {
	for q.popped < len(q.left) {
		c := q.newChainLocked()
		err := shm.Guard(func() error { _, err := q.fetchLocked(c); return err })
		c.dropMemory()
		if err != nil {
			q.lg.Error("request of an earlier backend is lost", zap.Error(err))
			break
		}
		q.addLocked(c)
	}
	lost := 0
	for c := q.outstanding.first; c != nil; c = c.next {
		if !c.done {
			lost++
			c.done, c.written = true, 0
			q.pushed = append(q.pushed, c)
		}
	}
	if q.publishLocked() != nil {
		return // logged and reported there
	}
	if err := shm.Guard(func() error { q.ring.askKicks(); return nil }); err != nil {
		_ = q.breakLocked(err)
		return
	}
	if lost == 0 {
		return
	}
	q.lg.Warn("stopped queue has chains outstanding that it cannot give back", zap.Int("chains", lost))
	q.callLocked()
}
