// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"slices"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

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
