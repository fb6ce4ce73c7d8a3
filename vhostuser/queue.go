// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

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
	index      int
	log        *dirtyLog
	lg         *zap.Logger
	indirectOK func() bool

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
	mem     *Memory // retained

	ring      ring // valid while mapped
	mapped    bool
	lastAvail uint16 // next position to take from the available ring
	usedIdx   uint16 // next position to fill in the used ring
	usedKnown bool   // usedIdx was read, at the first mapping since the start

	pending  []*Chain // outstanding chains, by position modulo the ring's size
	deferred []usedEntry
	free     []*Chain
	call     eventFD // raised to interrupt the driver
	errfd    eventFD // raised when the queue breaks
}

// setup is what the frontend told about a ring that is not running.
type setup struct {
	size    int // zero: not told yet
	addr    wire.VringAddr
	hasAddr bool
}

type usedEntry struct {
	pos, head uint16
	written   uint32
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
// Every chain must be given back once, by Push or Unpop, even after the queue
// was stopped: it keeps the guest memory mapped until then. The Chain must not
// be used after that.
func (q *Queue) Pop() (*Chain, error) {
	for {
		c, err := q.tryPop()
		if err == nil {
			return c, nil
		}
		wait := asDelay(err)
		if wait == nil {
			return nil, err
		}
		if err := wait.await(q.stopSignal()); err != nil {
			q.Fail(err)
		}
	}
}

// tryPop is Pop, but for memory that has to be waited for: that is a delay.
func (q *Queue) tryPop() (*Chain, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case !q.started:
		return nil, ErrQueueStopped
	case q.broken != nil:
		return nil, q.broken
	case !q.running || !q.mapped:
		return nil, nil
	}
	var c *Chain
	err := shm.Guard(func() (err error) {
		c, err = q.popLocked()
		return err
	})
	switch {
	case err == nil:
		return c, nil
	case asDelay(err) != nil:
		return nil, err
	}
	return nil, q.breakLocked(err)
}

func (q *Queue) popLocked() (*Chain, error) {
	waiting := q.ring.availIdx() - q.lastAvail
	if waiting == 0 {
		return nil, nil
	}
	if int(waiting) > q.ring.size {
		return nil, fmt.Errorf("available index is %d ahead in a ring of %d", waiting, q.ring.size)
	}
	slot := &q.pending[q.ring.slot(q.lastAvail)]
	if *slot != nil {
		return nil, fmt.Errorf("driver has more than %d buffers outstanding", q.ring.size)
	}
	head := q.ring.availHead(q.lastAvail)
	if int(head) >= q.ring.size {
		return nil, fmt.Errorf("available descriptor %d is outside a table of %d", head, q.ring.size)
	}

	c := q.newChainLocked()
	c.pos, c.head, c.epoch = q.lastAvail, head, q.epoch
	c.mem = q.mem
	c.mem.Retain()
	// Also when collect faults: the chain holds a reference.
	ok := false
	defer func() {
		if !ok {
			q.releaseLocked(c)
		}
	}()
	if err := c.collect(&q.ring, q.indirectOK()); err != nil {
		return nil, fmt.Errorf("descriptor chain %d: %w", head, err)
	}
	ok = true
	*slot = c
	q.lastAvail++
	return c, nil
}

// Push completes c: it puts c on the used ring with the number of bytes that
// the device wrote, at most c.WritableLen. It does not interrupt the driver;
// see Notify. After the queue was stopped it returns [ErrQueueStopped] and only
// frees c.
func (q *Queue) Push(c *Chain, written uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.q != q || c.mem == nil {
		return errors.New("push chain: it is not outstanding on this queue")
	}
	defer q.releaseLocked(c)
	if !q.ownsLocked(c) {
		return ErrQueueStopped
	}
	if q.broken != nil {
		return q.broken
	}
	e := usedEntry{pos: c.pos, head: c.head, written: min(written, c.writeLen)}
	if !q.mapped {
		q.deferred = append(q.deferred, e)
		return nil
	}
	q.pending[q.ring.slot(c.pos)] = nil
	return q.completeLocked(e)
}

// completeLocked puts one completion on the used ring.
func (q *Queue) completeLocked(e usedEntry) error {
	err := shm.Guard(func() error {
		q.ring.putUsed(q.usedIdx, e.head, e.written)
		q.usedIdx++
		q.ring.publish(q.usedIdx)
		return nil
	})
	if err != nil {
		return q.breakLocked(err)
	}
	return nil
}

// Unpop gives back the chain that was popped last, unused: the next Pop, of
// this backend or of another one after a migration, finds it again. For any
// other chain it returns [ErrUnpopOrder], and the chain stays outstanding.
//
// A queue that is stopped does this by itself with the chains popped last that
// are still outstanding. An outstanding chain that was popped before one that
// is already completed cannot be given back, since the state of a stopped ring
// is a single index; it is completed with nothing written.
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
	if c.pos != q.lastAvail-1 {
		return ErrUnpopOrder
	}
	q.pending[int(c.pos)&(len(q.pending)-1)] = nil
	q.lastAvail--
	q.releaseLocked(c)
	return nil
}

// Notify interrupts the driver, unless the driver asked not to be. One call
// serves any number of preceding Pushes.
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
	var flags uint16
	if err := shm.Guard(func() error {
		flags = q.ring.availFlags()
		return nil
	}); err != nil {
		return q.breakLocked(err)
	}
	if flags&availNoInterrupt != 0 {
		return nil
	}
	return q.call.raise()
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

func (q *Queue) newChainLocked() *Chain {
	if n := len(q.free); n > 0 {
		c := q.free[n-1]
		q.free = q.free[:n-1]
		return c
	}
	return &Chain{q: q}
}

func (q *Queue) releaseLocked(c *Chain) {
	c.mem.Release()
	c.mem = nil
	clear(c.segs) // the memory may be unmapped from now on
	q.free = append(q.free, c)
}

// eventFD is an eventfd of the frontend that we raise. The zero value has none.
type eventFD struct {
	fd     int
	has    bool
	polled bool   // the frontend asked not to be notified
	inband func() // notifies without a descriptor; nil if there is no way
}

// replace closes the old descriptor and owns the new one; negative means none.
func (e *eventFD) replace(fd int) {
	if e.has {
		unix.Close(e.fd)
	}
	e.fd, e.has, e.polled = fd, fd >= 0, fd < 0
}

// raise adds one to the eventfd. A full counter, EAGAIN, is as good.
func (e *eventFD) raise() error {
	if !e.has {
		if !e.polled && e.inband != nil {
			e.inband()
		}
		return nil
	}
	one := [8]byte{1}
	if _, err := unix.Write(e.fd, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("raise eventfd: %w", os.NewSyscallError("write", err))
	}
	return nil
}
