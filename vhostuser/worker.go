// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

const (
	// stopGrace is how long the frontend, and with it the guest, waits for a
	// Kick that does not return.
	stopGrace = 2 * time.Second
	// pollInterval is how often a ring without a usable kick descriptor is
	// looked at.
	pollInterval = time.Millisecond
	// yieldInterval is how often a worker yields, at least.
	yieldInterval = 5 * time.Millisecond
)

// worker is the goroutine that calls Kick while a queue runs. It ends itself
// when it is told to; kicks that come when there is none stay in the eventfd,
// and the next worker calls Kick once before it waits.
type worker struct {
	quit chan struct{} // closed by stopWorker
	done chan struct{} // closed by the goroutine

	spins   spinner
	yielded time.Time // to the runtime's scheduler
}

func (q *Queue) startWorker() {
	if q.life.worker != nil {
		select {
		case <-q.life.worker.quit:
		default:
			return // there is one
		}
	}
	q.life.kick.rearm()
	prev := q.life.worker
	w := &worker{quit: make(chan struct{}), done: make(chan struct{})}
	q.life.worker = w
	go q.work(w, prev, q.life.kick)
}

// stopWorker ends the worker and waits for it, but not for ever: a Kick that
// hangs can do no harm to the guest, since the queue's methods refuse it.
func (q *Queue) stopWorker() {
	w := q.life.worker
	if w == nil {
		return
	}
	select {
	case <-w.quit: // it had its grace
		select {
		case <-w.done:
			q.life.worker = nil
		default:
		}
		return
	default:
		close(w.quit)
	}
	q.life.kick.interrupt()
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-w.done:
		q.life.worker = nil
	case <-timer.C:
		q.lg.Error("Kick does not return, leaving it behind", zap.Int("queue", q.index))
	}
}

func (q *Queue) work(w, prev *worker, kick *kickFD) {
	defer close(w.done)
	if prev != nil {
		// Kick never runs twice at once, so wait for one left behind.
		select {
		case <-prev.done:
		case <-w.quit:
			<-prev.done
			return
		}
	}
	for {
		select {
		case <-w.quit:
			return
		default:
		}
		popped := q.quiet()
		if err := shm.Guard(func() error { q.life.dev.Kick(q); return nil }); err != nil {
			q.Fail(fmt.Errorf("handle kick: %w", err))
			return
		}
		if q.spin(w, popped) {
			continue
		}
		if err := q.waitKick(w, kick); err != nil {
			if !errors.Is(err, errWorkerQuit) {
				q.Fail(fmt.Errorf("wait for kick: %w", err))
			}
			return
		}
	}
}

// quiet asks the driver not to kick, and returns how many chains were popped so
// far. What is available now is known when it returns.
func (q *Queue) quiet() (popped uint64) {
	q.ifActive(func() {
		q.ring.fresh()
		q.ring.refuseKicks()
		popped = q.seq
	})
	return popped
}

// ifActive calls f, which may access the ring, if the queue runs.
func (q *Queue) ifActive(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running || !q.mapped || q.broken != nil {
		return
	}
	if err := shm.Guard(func() error { f(); return nil }); err != nil {
		_ = q.breakLocked(err) // logged and reported there
	}
}

var errWorkerQuit = errors.New("worker is told to end")

// waitKick waits for a kick.
func (q *Queue) waitKick(w *worker, kick *kickFD) error {
	select {
	case <-w.quit: // a worker that was left behind must not take its successor's kicks
		return errWorkerQuit
	default:
	}
	if !kick.usable {
		return q.pollRing(w)
	}
	more := false
	q.ifActive(func() {
		q.ring.askKicks()
		more = q.ring.fresh()
	})
	if more {
		return nil
	}
	w.yield()
	return kick.wait()
}

// yield lets the runtime schedule the worker anew from time to time. Its
// monitor takes a goroutine that was not for 10 ms for one that keeps others
// from running, though it may do little else than wait, and deprives it of its
// processor in each system call, for up to a fifth of a busy worker's time.
func (w *worker) yield() {
	if now := time.Now(); now.Sub(w.yielded) >= yieldInterval {
		runtime.Gosched()
		w.yielded = now
	}
}

// pollRing waits until new buffers are available.
func (q *Queue) pollRing(w *worker) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for more := false; !more; {
		select {
		case <-w.quit:
			return errWorkerQuit
		case <-tick.C:
			// Chains that were left are new as soon as the ring is mapped.
			q.ifActive(func() { more = q.ring.fresh() || q.popped < len(q.left) })
		}
	}
	return nil
}

// Fail breaks the queue with the given reason, as a malformed ring does: for a
// request that leaves no place for an answer. The driver has to reset the
// device. It does nothing to a queue that is stopped or broken.
func (q *Queue) Fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.started && q.broken == nil {
		_ = q.breakLocked(err)
	}
}
