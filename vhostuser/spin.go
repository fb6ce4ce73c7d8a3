// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

const (
	// defaultSpin is how long a worker looks for new buffers before it sleeps:
	// longer than a driver that waits for an interrupt takes to wake up and to
	// ask again, which was measured as 10 to 20 microseconds.
	defaultSpin = 50 * time.Microsecond
	// spinPauses is how many pauses a spinning worker makes between two looks,
	// to leave the cache lines of the ring to the driver.
	spinPauses = 32
	// maxRest is after how many Kicks at most a worker spins again.
	maxRest = 256
)

// spinner says whether it is worth to spin. Where the driver has no processor
// to itself it cannot go on while the worker spins: both only lose time, though
// the driver's next kick would come soon. So a spin that found nothing is
// followed by some Kicks without one, twice as many each time.
type spinner struct {
	rest int // Kicks that are to be followed by sleep
	vain int // what rest was after the last spin in vain
}

// begin is called after a Kick, and says whether to spin.
func (s *spinner) begin() bool {
	if s.rest > 0 {
		s.rest--
		return false
	}
	return true
}

// end takes what came of it.
func (s *spinner) end(success bool) {
	if success {
		s.vain = 0
		return
	}
	s.vain = min(max(1, 2*s.vain), maxRest)
	s.rest = s.vain
}

// spin looks for new buffers for a short time before the worker sleeps, and
// returns true when there are. It looks only once after a Kick that popped
// nothing: popped is the number of chains before that.
func (q *Queue) spin(w *worker, popped uint64) bool {
	limit := q.life.dev.SpinTime
	if limit == 0 {
		limit = defaultSpin
	}
	more, busy := q.look(popped)
	if more || !busy || limit < 0 || !w.spins.begin() {
		return more
	}
	for start := time.Now(); ; {
		select {
		case <-w.quit:
			return true
		default:
		}
		for range spinPauses {
			shm.Pause()
		}
		more, busy = q.look(popped)
		took := time.Since(start)
		if more || !busy || took >= limit {
			// What took longer came while somebody else had the processor.
			w.spins.end(more && took < limit)
			return more
		}
	}
}

// look says whether there are new buffers, and whether chains were popped
// since there were so many.
func (q *Queue) look(popped uint64) (more, busy bool) {
	q.ifActive(func() { more, busy = q.ring.fresh(), q.seq != popped })
	return more, busy
}
