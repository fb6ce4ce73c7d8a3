// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Queue is a virtqueue of one connection. All methods may be called from any
// goroutine, also while the frontend stops the queue.
//
// A ring that the frontend unmaps for a moment (it removes and adds memory
// regions one by one) is paused: Pop finds nothing, and Push keeps the
// completion until the ring is back.
type Queue struct {
	index   int
	log     *dirtyLog
	lg      *zap.Logger
	dialect func() dialect // as negotiated

	life lifecycle // of the message goroutine alone

	// mu guards everything below, and every access to the ring's memory. It is
	// taken after no other lock but before dirtyLog.mu.
	mu      sync.Mutex
	set     setup
	started bool
	enabled bool
	running bool          // QueueStarted was called, and QueueStopping was not since
	halting chan struct{} // closed when running ends
	broken  error         // a *RingError
	epoch   uint64
	mem     *lease

	ring    ring // nil while stopped
	inOrder bool
	mapped  bool // ring is attached to memory
	begun   bool // ring has its positions, since it was mapped once

	flight flight   // nil: chains are not tracked
	left   []uint16 // chains of a backend before us, to be popped first
	popped int      // of them

	seq         uint64    // of the next chain to pop
	outstanding chainList // popped, and not published as used
	pushed      []*Chain  // the ones among them that wait to be published
	free        []*Chain
	call        eventFD // raised to interrupt the driver
	errfd       eventFD // raised when the queue breaks
}

// setup is what the frontend told about a ring that is not running.
type setup struct {
	size    int // zero: not told yet
	addr    wire.VringAddr
	hasAddr bool
	base    uint32

	inflight      area // where to track chains, if it has memory
	inflightLimit int  // how many descriptors it has room for
}

// Index returns the queue's number.
func (q *Queue) Index() int { return q.index }

// Running says whether the queue is started, enabled and not broken at this
// moment.
func (q *Queue) Running() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running && q.broken == nil
}

// Pop takes the next chain that the driver made available. It returns nil, nil
// when there is none or the queue is disabled (Kick is called when it is
// enabled again), [ErrQueueStopped] when the queue is stopped, and a
// *[RingError] when the ring is broken.
//
// Where chains are tracked (see Device.TrackInflight), those that a backend
// before us left in flight come first, also while the queue stops.
//
// Every chain must be given back once, by Push or Unpop, even after the queue
// was stopped: it keeps the guest memory mapped until then. The Chain must not
// be used after that.
func (q *Queue) Pop() (*Chain, error) {
	var one [1]*Chain
	_, err := q.PopBatch(one[:])
	return one[0], err
}

// PopBatch is Pop for several chains, with less effort for each: it fills dst
// as far as there are chains, and returns how many. An error comes alone; where
// chains were popped before it, the next call returns it.
func (q *Queue) PopBatch(dst []*Chain) (int, error) {
	for {
		n, err := q.tryPop(dst)
		if n > 0 || err == nil {
			return n, nil
		}
		wait := asDelay(err)
		if wait == nil {
			return 0, err
		}
		if err := wait.await(q.stopSignal()); err != nil {
			q.Fail(err)
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
	if err != nil && asDelay(err) == nil {
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

// Completion is a chain that the device is done with.
type Completion struct {
	Chain *Chain
	// Written is how many bytes of its writable part the device wrote.
	Written uint32
}

// Push completes c: the driver finds it on the used ring with the number of
// bytes that the device wrote, at most c.WritableLen. It does not interrupt
// the driver; see Notify. After the queue was stopped it returns
// [ErrQueueStopped] and only frees c.
//
// With VIRTIO_F_IN_ORDER the driver finds c once all chains that were popped
// before it were completed, too.
func (q *Queue) Push(c *Chain, written uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.acceptLocked(c, written); err != nil {
		return err
	}
	return q.publishLocked()
}

// PushBatch is Push for several chains, of which the driver sees all at once:
// its used index moves one time. An error does not keep the other chains from
// being completed; the first one is returned.
func (q *Queue) PushBatch(done []Completion) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var first error
	for _, d := range done {
		if err := q.acceptLocked(d.Chain, d.Written); err != nil && first == nil {
			first = err
		}
	}
	if err := q.publishLocked(); err != nil && first == nil {
		first = err
	}
	return first
}

// acceptLocked takes c back from the device.
func (q *Queue) acceptLocked(c *Chain, written uint32) error {
	switch {
	case c.q != q || c.mem == nil:
		return errors.New("push chain: it is not outstanding on this queue")
	case !q.ownsLocked(c):
		q.releaseLocked(c)
		return ErrQueueStopped
	case q.broken != nil:
		q.outstanding.remove(c)
		q.releaseLocked(c)
		return q.broken
	}
	c.dropMemory()
	c.done, c.written = true, min(written, c.writeLen)
	q.pushed = append(q.pushed, c)
	return nil
}

// publishLocked puts the chains that were pushed on the used ring, as far as
// the driver may see them. A ring without memory keeps them for later.
func (q *Queue) publishLocked() error {
	if !q.mapped || len(q.pushed) == 0 {
		return nil
	}
	if q.broken != nil {
		return q.broken
	}
	if err := shm.Guard(func() error {
		if q.inOrder {
			q.putInOrder()
		} else {
			q.putAll()
		}
		q.ring.publish()
		if q.flight != nil {
			q.flight.settle()
		}
		return nil
	}); err != nil {
		return q.breakLocked(err)
	}
	return nil
}

// putAll puts every chain that was pushed.
func (q *Queue) putAll() {
	for _, c := range q.pushed {
		q.ring.put(usedElem{id: c.id, slots: c.slots, written: c.written})
		q.retireLocked(c)
	}
	q.pushed = q.pushed[:0]
}

// retireLocked ends what there was to do for a chain, which was put.
func (q *Queue) retireLocked(c *Chain) {
	c.done = false
	if q.flight != nil {
		q.flight.complete(c)
	}
	q.outstanding.remove(c)
	if c.mem == nil { // else the device has yet to give it back
		q.free = append(q.free, c)
	}
}

// putInOrder puts the chains at the head of the outstanding ones, as long as
// they were pushed. An element stands for all chains before it whose buffers
// were used completely (VIRTIO 1.2, 2.7.9 and 2.8.9).
func (q *Queue) putInOrder() {
	slots := 0
	for c := q.outstanding.first; c != nil && c.done; c = q.outstanding.first {
		slots += c.slots
		if !c.full() || c.next == nil || !c.next.done {
			q.ring.put(usedElem{id: c.id, slots: slots, written: c.written})
			slots = 0
		}
		q.retireLocked(c)
	}
	q.pushed = slices.DeleteFunc(q.pushed, func(c *Chain) bool { return !c.done })
}

// Unpop gives back the chain that was popped last, unused: the next Pop, of
// this backend or of another one after a migration, finds it again. For any
// other chain it returns [ErrUnpopOrder], and the chain stays outstanding.
//
// A queue that is stopped does this by itself with the chains popped last that
// the driver has not got back. An outstanding chain that was popped before one
// that is already completed cannot be given back, since the state of a stopped
// ring is a single position, nor one that an earlier backend left in flight;
// they are completed with nothing written.
func (q *Queue) Unpop(c *Chain) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.q != q || c.mem == nil {
		return errors.New("unpop chain: it is not outstanding on this queue")
	}
	if !q.ownsLocked(c) {
		q.releaseLocked(c)
		return ErrQueueStopped
	}
	if c.seq != q.seq-1 {
		return ErrUnpopOrder
	}
	err := shm.Guard(func() error { q.unfetchLocked(c); return nil })
	q.releaseLocked(c)
	if err != nil {
		return q.breakLocked(err)
	}
	return nil
}

// unfetchLocked makes c, the chain popped last, available again.
func (q *Queue) unfetchLocked(c *Chain) {
	q.outstanding.remove(c)
	q.seq--
	if c.resubmit {
		q.popped--
		return
	}
	q.ring.unfetch(c.slots)
	if q.flight != nil {
		q.flight.untake(c)
	}
}

// Notify interrupts the driver if it wants that for what was pushed since the
// last time. One call serves any number of preceding Pushes.
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
	return q.call.raise()
}

// askForRingLocked asks again for the translation of a ring that waits for it,
// and says whether it is there. A frontend that had none may have one now.
func (q *Queue) askForRingLocked() bool {
	if !q.mem.translated() {
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
	if err := q.errfd.raise(); err != nil {
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
