// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

const (
	// defaultSpin is how long a worker looks for new buffers before it sleeps:
	// longer than a driver that waits for an interrupt takes to wake up and to
	// ask again, which was measured as 10 to 20 microseconds.
	defaultSpin = 50 * time.Microsecond
	// spinPerChain is added for each chain that the Kick before popped: the driver
	// takes all of them back before it adds the first of the next ones.
	spinPerChain = 250 * time.Nanosecond
	// maxSpin bounds the sum.
	maxSpin = 200 * time.Microsecond
	// spinPauses is how many pauses a spinning worker makes between two looks,
	// to leave the cache lines of the ring to the driver.
	spinPauses = 32
	// looksPerYield is after how many looks it yields. Each time can cost it the
	// processor for a while, where others want it, too.
	looksPerYield = 8
	// maxRest is after how many Kicks at most a worker spins again.
	maxRest = 256
)

// spinner decides whether to spin. If driver and worker share a processor, the driver cannot
// run while the worker spins, so spinning only costs time. Therefore, after a spin that found
// nothing, some Kicks are not followed by a spin: twice as many each time.
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

// end is called after a spin, and says whether it found buffers.
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
	more, n := q.look(popped)
	limit := q.spinTime(n)
	if more || n <= 0 || limit < 0 || !w.spins.begin() {
		return more
	}
	for start, looks := time.Now(), 1; ; looks++ {
		select {
		case <-w.quit:
			return true
		default:
		}
		for range spinPauses {
			shm.Pause()
		}
		if looks%looksPerYield == 0 {
			schedYield()
		}
		more, n = q.look(popped)
		took := time.Since(start)
		if more || n <= 0 || took >= limit {
			// What took longer came while somebody else had the processor.
			w.spins.end(more && took < limit)
			return more
		}
	}
}

// schedYield lets others have this processor, the driver above all: the scheduler may
// have woken it here. It returns at once where there are none.
func schedYield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// spinTime returns how long to look for new buffers after n chains.
func (q *Queue) spinTime(n int64) time.Duration {
	if t := q.life.dev.SpinTime; t != 0 {
		return t
	}
	return min(defaultSpin+time.Duration(min(n, 1<<16))*spinPerChain, maxSpin)
}

// look says whether there are new buffers, and how many chains were popped
// since there were so many. There are fewer where some were given back, and
// none where the queue does not run.
func (q *Queue) look(popped uint64) (more bool, n int64) {
	q.ifActive(func() { more, n = q.ring.fresh(), int64(q.seq-popped) })
	return more, n
}
