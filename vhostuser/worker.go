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
	// stopGrace is how long a stop waits for a Kick that does not return. The
	// frontend waits meanwhile, and the guest with it.
	stopGrace = 2 * time.Second
	// pollInterval is the time between two looks at a ring that has no usable kick
	// descriptor.
	pollInterval = time.Millisecond
	// yieldInterval is the longest time between two yields of a busy worker.
	yieldInterval = 5 * time.Millisecond
)

// worker is the goroutine that calls Kick while a queue runs. stopWorker tells it to
// end. Kicks that come while there is no worker stay in the eventfd. The next worker
// calls Kick once before it waits, so no kick is lost.
type worker struct {
	quit chan struct{} // closed by stopWorker
	done chan struct{} // closed by the goroutine

	spins   spinner
	yielded time.Time // when it last yielded to the runtime's scheduler
}

func (q *Queue) startWorker() {
	if q.life.worker != nil {
		select {
		case <-q.life.worker.quit:
		default:
			return // a worker runs already
		}
	}
	q.life.kick.rearm()
	prev := q.life.worker
	w := &worker{quit: make(chan struct{}), done: make(chan struct{})}
	q.life.worker = w
	go q.work(w, prev, q.life.kick)
}

// stopWorker ends the worker and waits for it, for stopGrace at most. A Kick that hangs
// cannot harm the guest: the methods of the stopped queue refuse its calls.
func (q *Queue) stopWorker() {
	w := q.life.worker
	if w == nil {
		return
	}
	select {
	case <-w.quit: // an earlier call has waited already
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
		// Kick must not run twice at the same time: wait for the previous worker.
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

// quiet asks the driver not to kick, and returns how many chains were popped so far.
// Buffers that are available now do not count as new afterwards.
func (q *Queue) quiet() (popped uint64) {
	q.ifActive(func() {
		q.ring.fresh()
		q.ring.refuseKicks()
		popped = q.seq
	})
	return popped
}

// ifActive calls f if the queue runs and its ring is mapped. f may access the ring.
func (q *Queue) ifActive(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running || !q.mapped || q.broken != nil {
		return
	}
	if err := shm.Guard(func() error { f(); return nil }); err != nil {
		_ = q.breakLocked(err) // it logs the error and tells the frontend
	}
}

var errWorkerQuit = errors.New("worker is told to end")

// waitKick asks the driver for a kick and waits for it. It returns at once if buffers
// have become available since quiet.
func (q *Queue) waitKick(w *worker, kick *kickFD) error {
	select {
	case <-w.quit: // a worker that is ending must not consume kicks for the next one
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

// yield lets the runtime schedule the worker anew from time to time. If it is not
// scheduled anew for 10 ms, the runtime's monitor treats it as a goroutine that keeps
// others from running. The monitor then takes its processor away in each system call,
// even if the worker only waits in it. This was seen to cost a busy worker up to a
// fifth of its time.
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
			// Chains that an earlier backend left in flight count as new, too.
			q.ifActive(func() { more = q.ring.fresh() || q.popped < len(q.left) })
		}
	}
	return nil
}

// Fail marks the queue as broken for the given reason, as a malformed ring does. It is
// for a request that has no place for an answer. The driver has to reset the device. It
// has no effect on a queue that is stopped or already broken.
func (q *Queue) Fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.started && q.broken == nil {
		_ = q.breakLocked(err)
	}
}
