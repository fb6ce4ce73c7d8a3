// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"sync"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/eventfd"
	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

// Queue is a virtqueue of one connection. All methods may be called from any
// goroutine, also while the frontend stops the queue.
//
// The frontend may unmap a ring for a moment, when it removes and adds memory regions one by
// one. The queue is paused then: Pop returns no chain, and Push keeps the completion until
// the ring is mapped again.
type Queue struct {
	index   int
	log     *guestmem.DirtyLog
	lg      *zap.Logger
	dialect func() dialect // as negotiated
	hungUp  func() bool

	life lifecycle // of the message goroutine alone

	// mu guards everything below, and every access to the ring's memory. The
	// dirty log's lock is taken while it is held, and no other.
	mu      sync.Mutex
	set     setup
	started bool
	enabled bool
	running bool          // QueueStarted was called, and QueueStopping was not since
	halting chan struct{} // closed when running ends
	broken  error         // a *RingError
	epoch   uint64        // counts the starts: a chain belongs to one
	mem     *lease

	ring    ring // nil while stopped
	inOrder bool
	mapped  bool // ring is attached to memory
	begun   bool // ring has its positions, since it was mapped once

	flight flight   // tracks chains in flight; nil: they are not tracked
	left   []uint16 // chains that a backend before us left in flight: popped first
	popped int      // how many of left were popped

	seq         uint64    // number of the next chain to pop
	outstanding chainList // chains that were popped and are not published as used
	pushed      []*Chain  // those of them that were pushed and wait to be published
	free        []*Chain
	call        eventfd.FD // raised to interrupt the driver
	errfd       eventfd.FD // raised when the queue breaks
}

// Index returns the queue's number.
func (q *Queue) Index() int { return q.index }

// Base returns the position at which the frontend told the ring to begin (SET_VRING_BASE).
// For a split ring that is the index of the first chain to pop. For a packed ring it is two
// positions with their wrap counters.
func (q *Queue) Base() uint32 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.set.base
}

// Running says whether the queue is started, enabled and not broken at this
// moment.
func (q *Queue) Running() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running && q.broken == nil
}

// Abandoned says whether the frontend has closed the connection, although its last messages
// are not read yet and the queue still runs. That happens if this process was stopped: the
// frontend gives it up after a timeout, and the guest may then use the ring's memory for
// something else. So a device that may be idle for long should call Abandoned before it pops.
// It costs a system call.
func (q *Queue) Abandoned() bool { return q.hungUp() }

// Pop takes the next chain that the driver made available. It returns nil, nil if there is
// none, or if the queue is disabled (Kick is called when it is enabled again). It returns
// [ErrQueueStopped] if the queue is stopped, and a *[RingError] if the ring is broken.
//
// With [Device.TrackInflight], chains that an earlier backend left in flight come first, also
// while the queue stops.
//
// Every chain must be given back once, by Push or Unpop, even after the queue was stopped:
// until then it keeps the guest memory mapped. The Chain must not be used after that.
func (q *Queue) Pop() (*Chain, error) {
	var one [1]*Chain
	_, err := q.PopBatch(one[:])
	return one[0], err
}

// PopBatch is Pop for several chains, at a lower cost for each. It fills dst as far as there
// are chains, and returns their number. If there is an error after some chains were popped, it
// returns these chains, and the next call returns the error.
func (q *Queue) PopBatch(dst []*Chain) (int, error) {
	for {
		n, err := q.tryPop(dst)
		if n > 0 || err == nil {
			return n, nil
		}
		wait := guestmem.AsDelay(err)
		if wait == nil {
			return 0, err
		}
		stop := q.stopSignal()
		if err := wait.Await(stop); err != nil {
			q.Fail(err)
		}
		select {
		case <-stop:
			return 0, nil // what is missing may never come, and the stop waits for us
		default:
		}
	}
}

// tryPop is PopBatch, but for memory that has to be waited for: that is a delay.
func (q *Queue) tryPop(dst []*Chain) (n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case !q.started:
		return 0, ErrQueueStopped
	case q.broken != nil:
		return 0, q.broken
	case !q.mayPopLocked(), !q.mapped && !q.askForRingLocked():
		return 0, nil
	}
	var c *Chain // that is being fetched
	err = shm.Guard(func() error {
		for n < len(dst) && q.mayPopLocked() {
			c = q.newChainLocked()
			if ok, err := q.fetchLocked(c); !ok {
				return err
			}
			q.addLocked(c)
			dst[n], c = c, nil
			n++
		}
		return nil
	})
	if c != nil {
		q.releaseLocked(c)
	}
	if err != nil && guestmem.AsDelay(err) == nil {
		err = q.breakLocked(err)
	}
	return n, err
}

// mayPopLocked says whether chains may be popped now: of a queue that does not
// run, only those that a backend before us left.
func (q *Queue) mayPopLocked() bool { return q.running || q.popped < len(q.left) }

// addLocked makes c, which was fetched, outstanding.
func (q *Queue) addLocked(c *Chain) {
	c.seq = q.seq
	q.seq++
	q.outstanding.add(c)
}

// fetchLocked fills c with the next chain, or returns false if there is none.
func (q *Queue) fetchLocked(c *Chain) (bool, error) {
	if q.popped < len(q.left) {
		if err := q.flight.load(c, q.left[q.popped]); err != nil {
			return false, err
		}
		c.resubmit = true
		q.popped++
		return true, nil
	}
	c.resubmit = false
	ok, err := q.ring.fetch(c)
	if ok && q.flight != nil {
		err = q.flight.take(c)
	}
	return ok && err == nil, err
}

// Notify interrupts the driver if the driver wants that for the chains pushed since the last
// call. One call is enough for any number of Pushes.
func (q *Queue) Notify() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case !q.started:
		return ErrQueueStopped
	case q.broken != nil:
		return q.broken
	case !q.mapped:
		return nil // the driver is interrupted when the ring is back
	}
	wanted := false
	if err := shm.Guard(func() error {
		wanted = q.ring.wantsCall()
		return nil
	}); err != nil {
		return q.breakLocked(err)
	}
	if !wanted {
		return nil
	}
	return q.call.Raise()
}

// askForRingLocked asks again for the translation of a ring that waits for it,
// and says whether it is there. A frontend that had none may have one now.
func (q *Queue) askForRingLocked() bool {
	if !q.mem.Translated() || !q.set.hasAddr {
		return false
	}
	_, err := q.attachLocked(q.set.addr)
	return err == nil && q.broken == nil
}

// paused says whether the queue is started, but its ring is not mapped.
func (q *Queue) paused() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.started && !q.mapped
}

// stopSignal is closed when the queue stops to run.
func (q *Queue) stopSignal() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.halting
}

// ownsLocked says whether c was popped in the current run of the queue.
func (q *Queue) ownsLocked(c *Chain) bool {
	return q.started && c.mem != nil && c.epoch == q.epoch
}

// breakLocked stops all work on the ring until it is set up anew.
func (q *Queue) breakLocked(err error) error {
	q.broken = &RingError{Queue: q.index, Err: err}
	q.lg.Error("queue is broken", zap.Error(q.broken))
	if err := q.errfd.Raise(); err != nil {
		q.lg.Warn("cannot report the broken queue", zap.Error(err))
	}
	return q.broken
}

// newChainLocked returns an empty chain of the current run.
func (q *Queue) newChainLocked() *Chain {
	var c *Chain
	if n := len(q.free); n > 0 {
		c, q.free = q.free[n-1], q.free[:n-1]
	} else {
		c = &Chain{q: q}
	}
	c.epoch, c.mem, c.done = q.epoch, q.mem.renew(), false
	if c.raw == nil && q.flight != nil {
		c.raw = make([]desc, 0, 4)
	}
	return c
}

func (q *Queue) releaseLocked(c *Chain) {
	c.dropMemory()
	q.free = append(q.free, c)
}
