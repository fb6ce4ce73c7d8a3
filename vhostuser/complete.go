// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"slices"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

// Completion is a chain that the device has finished.
type Completion struct {
	Chain *Chain
	// Written is how many bytes of its writable part the device wrote.
	Written uint32
}

// Push completes c: it puts c on the used ring, with the number of bytes that the
// device wrote, which is at most c.WritableLen. It does not interrupt the driver; see
// Notify. After the queue was stopped it only frees c, and returns [ErrQueueStopped].
//
// With VIRTIO_F_IN_ORDER the driver sees c only after all chains that were popped
// earlier are completed, too.
func (q *Queue) Push(c *Chain, written uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.acceptLocked(c, written); err != nil {
		return err
	}
	return q.publishLocked()
}

// PushBatch is Push for several chains. The driver sees all of them at once, because the
// used index is updated once. After an error it still completes the other chains; it
// returns the first error.
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

// publishLocked puts pushed chains on the used ring: all, or with IN_ORDER those before
// which no chain is missing. If the ring is not mapped it keeps them for later.
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

// retireLocked frees a chain that was put.
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

// putInOrder puts the outstanding chains from the first one on, up to the first one that
// was not pushed. One element stands also for the chains before it whose buffers were
// completely written (VIRTIO 1.2, 2.7.9 and 2.8.9).
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

// Unpop gives back the chain that was popped last, unused: the next Pop returns it
// again, also that of another backend after a migration. For any other chain it returns
// [ErrUnpopOrder], and the chain stays outstanding.
//
// A stop of the queue unpops the outstanding chains, beginning with the one popped last,
// until it meets a completed chain. The other outstanding chains cannot be unpopped, because the
// state of a stopped ring is a single position. Nor can a chain that an earlier backend
// left in flight. The stop completes these with nothing written.
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
