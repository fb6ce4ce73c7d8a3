// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// lifecycle is the message goroutine's side of a queue. A queue is started
// from SET_VRING_KICK to GET_VRING_BASE, and enabled or disabled at any time;
// it runs while it is both (vhost-user.rst, "Ring states"). Only then it has a
// worker, the goroutine that calls Kick.
type lifecycle struct {
	dev    *Device
	kick   *kickFD
	worker *worker
}

// run starts to process an opened ring at each kick. A ring that is started already gets the new
// kick descriptor.
func (q *Queue) run(kick *kickFD) {
	if q.life.kick != nil {
		q.stopWorker()
		q.life.kick.close()
	}
	q.life.kick = kick
	q.update()
}

func (q *Queue) isStarted() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.started
}

// open begins to use the ring as the frontend has set it up. After an error the ring is stopped, as
// before.
func (q *Queue) open() (err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer func() {
		if err != nil {
			q.closeLocked()
		}
	}()
	switch unknown := q.set.size == 0 || !q.set.hasAddr || q.set.noBase; {
	case unknown && q.set.refused:
		return fmt.Errorf("%w: its size, base or address", errAfterRefusal)
	case unknown:
		return errors.New("its size or address is unknown")
	}
	d := q.dialect()
	if err := errors.Join(d.checkSize(uint32(q.set.size), q.set.size),
		d.checkBase(q.set.base, q.set.size)); err != nil {
		return err
	}
	r := newRing(d, q.set.size)
	attachErr := r.attach(q.mem.Snapshot, q.set.addr, q.log)
	if attachErr != nil && !guestmem.IsMiss(attachErr) {
		return attachErr
	}
	if b := q.set.inflight.b; b != nil && uint64(len(b)) < inflightSize(d, q.set.inflightLimit) {
		return errors.New("its memory to track what is in flight is for another format")
	}
	if q.set.inflight.b != nil && !q.tracksLocked() {
		q.lg.Warn("requests in flight are not tracked: the frontend gave too little room",
			zap.Int("descriptors", q.set.size), zap.Int("room", q.set.inflightLimit))
	}
	q.ring, q.inOrder = r, d.inOrder
	q.mapped, q.begun = attachErr == nil, false
	if err := q.beginLocked(); err != nil {
		return err
	}
	q.broken = nil
	q.epoch++
	q.seq, q.outstanding, q.pushed = 0, chainList{}, nil
	q.started = true
	// A backend before us may have died between a completion and its
	// interrupt. One interrupt too many does no harm.
	q.callLocked()
	return nil
}

// tracksLocked tells whether there is inflight memory with room for the ring. It may be for
// a smaller one: QEMU 10 asks for the queue-size of vhost-user-blk, and may then set a ring
// of 1024. The ring starts all the same: a guest that cannot use its disk is worse off than
// one whose requests are not recovered when the backend dies.
func (q *Queue) tracksLocked() bool {
	return q.set.inflight.b != nil && q.set.size <= q.set.inflightLimit
}

// closeLocked lets go of the ring and its memory.
func (q *Queue) closeLocked() {
	q.ring, q.mapped, q.flight = nil, false, nil
	q.left, q.popped = nil, 0
}

// callLocked interrupts the driver, whether or not it wants that.
func (q *Queue) callLocked() {
	if err := q.call.Raise(); err != nil {
		q.lg.Warn("cannot interrupt the driver", zap.Error(err))
	}
}

// beginLocked learns where the ring goes on, once it is mapped.
func (q *Queue) beginLocked() error {
	if !q.mapped || q.begun {
		return nil
	}
	return shm.Guard(func() error {
		q.begun = true
		q.ring.begin(q.set.base)
		if !q.tracksLocked() {
			return nil
		}
		q.flight = newFlight(q.ring, q.set.inflight, q.set.inflightLimit)
		var err error
		if q.left, err = q.flight.recover(); err == nil {
			return nil
		}
		// The record is damaged, or of an earlier driver: the device may have been
		// reset while there was no backend.
		q.lg.Error("requests in flight cannot be recovered", zap.Error(err))
		q.flight.leave()
		q.ring.begin(q.set.base)
		q.left, err = q.flight.recover()
		return err
	})
}

func (q *Queue) enable(on bool) {
	q.mu.Lock()
	was := q.enabled
	q.mu.Unlock()
	if was && !on {
		q.halt()
	}
	q.mu.Lock()
	q.enabled = on
	q.mu.Unlock()
	q.update()
}

// update makes the worker exist or not, as the state demands.
func (q *Queue) update() {
	q.mu.Lock()
	run := q.started && q.enabled && q.broken == nil && q.life.kick != nil
	begin := run && !q.running
	q.running = q.running || run
	if begin {
		q.halting = make(chan struct{})
	}
	q.mu.Unlock()
	if begin {
		call(q.life.dev.QueueStarted, q)
	}
	if run {
		q.startWorker()
	}
}

// halt tells the device that the queue stops running, and ends its worker. From now on Pop returns
// no chain, so that Kick ends even if the driver makes more buffers available.
func (q *Queue) halt() {
	q.mu.Lock()
	was := q.running
	q.running = false
	if was {
		close(q.halting)
	}
	q.mu.Unlock()
	if was {
		call(q.life.dev.QueueStopping, q)
	}
	q.stopWorker()
}

// stop stops the ring, and returns the base at which its next start has to continue. With complete,
// it completes outstanding chains that the base cannot express. Without, as for a frontend that is
// gone, it writes nothing.
func (q *Queue) stop(complete bool) uint32 {
	if complete {
		// The device may still complete or give back chains.
		q.halt()
	}
	q.mu.Lock()
	if q.started {
		q.rollBackLocked(complete)
		q.started = false
		if q.begun {
			q.set.base = q.ring.base()
		}
		q.closeLocked()
	}
	// The memory may be used for something else now, so the next start needs an address.
	q.set.addr, q.set.hasAddr, q.set.refused = wire.VringAddr{}, false, false
	base := q.set.base
	q.mu.Unlock()

	q.halt()
	q.life.kick.close()
	q.life.kick = nil
	return base
}

// close stops the queue without writing to guest memory, and frees what it owns.
func (q *Queue) close() {
	q.stop(false)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.call.Replace(-1)
	q.errfd.Replace(-1)
	q.mem.end()
	q.mem = nil
}

// call calls an optional callback.
func call[T any](f func(T), v T) {
	if f != nil {
		f(v)
	}
}
