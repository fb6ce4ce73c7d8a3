// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

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

func (q *Queue) setNum(n uint32, limit int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.started {
		return errors.New("set ring size: ring is started")
	}
	if err := q.dialect().checkSize(n, limit); err != nil {
		return fmt.Errorf("set ring size: %w", err)
	}
	q.set.size = int(n)
	return nil
}

func (q *Queue) setBase(n uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.started {
		return errors.New("set ring base: ring is started")
	}
	if err := q.dialect().checkBase(n, q.set.size); err != nil {
		return fmt.Errorf("set ring base: %w", err)
	}
	q.set.base, q.set.noBase = n, false
	return nil
}

// setAddr takes effect at once for a started ring: the frontend switches
// logging of the used ring that way.
func (q *Queue) setAddr(a wire.VringAddr) error {
	q.mu.Lock()
	if a.Flags&^uint32(wire.VringFLog) != 0 {
		q.mu.Unlock()
		return fmt.Errorf("set ring address: unknown flags in %v", a)
	}
	if q.set.size == 0 {
		q.mu.Unlock()
		return errors.New("set ring address: ring has no size yet")
	}
	back := false
	var err error
	if q.started {
		back, err = q.attachLocked(a)
	} else {
		err = newRing(q.dialect(), q.set.size).attach(q.mem.Memory, a, q.log)
	}
	if err == nil || isMiss(err) {
		q.set.addr, q.set.hasAddr = a, true
		err = nil
	}
	q.mu.Unlock()
	if err != nil {
		return fmt.Errorf("set ring address: %w", err)
	}
	q.resume(back)
	return nil
}

// forgetSize, forgetBase and forgetAddr are called when what the frontend told
// last was refused. What it told before is not what it means any more, so that
// the ring does not start until it is told again.
func (q *Queue) forgetSize() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.started { // the size of a started ring cannot change
		q.set.size, q.set.refused = 0, true
	}
}

func (q *Queue) forgetBase() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.started { // nor can its base
		q.set.noBase, q.set.refused = true, true
	}
}

// forgetAddr also pauses a started ring, until there is an address: what is at
// the old one may be no ring any more.
func (q *Queue) forgetAddr() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.set.addr, q.set.hasAddr, q.set.refused = wire.VringAddr{}, false, true
	q.mapped = false
}

// forgetSetup forgets all that was told about a stopped ring, but for the memory
// to track chains in.
func (q *Queue) forgetSetup() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.set = setup{inflight: q.set.inflight, inflightLimit: q.set.inflightLimit}
}

// run has the ring, which was opened, processed when kick tells to. A ring that
// is started already gets another kick descriptor.
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

// open begins to use the ring as it was told, unless that cannot be: the ring is
// stopped then, as before.
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
	if err := errors.Join(d.checkSize(uint32(q.set.size), q.set.size), d.checkBase(q.set.base, q.set.size)); err != nil {
		return err
	}
	r := newRing(d, q.set.size)
	attachErr := r.attach(q.mem.Memory, q.set.addr, q.log)
	if attachErr != nil && !isMiss(attachErr) {
		return attachErr
	}
	if b := q.set.inflight.b; b != nil && (q.set.size > q.set.inflightLimit ||
		uint64(len(b)) < inflightSize(d, q.set.inflightLimit)) { // it may have been for another format
		return fmt.Errorf("its %d descriptors are more than there is room for to track in flight", q.set.size)
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

// closeLocked lets go of the ring and its memory.
func (q *Queue) closeLocked() {
	q.ring, q.mapped, q.flight = nil, false, nil
	q.left, q.popped = nil, 0
}

// callLocked interrupts the driver, whether or not it wants that.
func (q *Queue) callLocked() {
	if err := q.call.raise(); err != nil {
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
		if q.set.inflight.b == nil {
			return nil
		}
		q.flight = newFlight(q.ring, q.set.inflight, q.set.inflightLimit)
		var err error
		if q.left, err = q.flight.recover(); err == nil {
			return nil
		}
		// Of no use, or not about this driver: the device was taken anew while
		// there was no backend.
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

// halt tells the device that the queue stops to run, and ends its worker. From
// now on Pop finds nothing, so that Kick ends though the driver goes on.
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

// setMemory makes the queue use another memory table.
func (q *Queue) setMemory(m *Memory) {
	q.mu.Lock()
	q.mem.end()
	q.mem = newLease(m)
	back := false
	if q.started && q.set.hasAddr {
		var err error
		if back, err = q.attachLocked(q.set.addr); err != nil {
			q.mapped = false
			q.lg.Debug("ring is paused: its memory was removed", zap.Error(err))
		}
	}
	q.mu.Unlock()
	q.resume(back)
}

// attachLocked finds the started ring in memory, and says whether it was not
// there before: then it goes on with what waited. An error leaves it as it is,
// but a translation that is missing pauses it.
func (q *Queue) attachLocked(a wire.VringAddr) (back bool, err error) {
	if err := q.ring.attach(q.mem.Memory, a, q.log); err != nil {
		q.mapped = q.mapped && !isMiss(err)
		return false, err
	}
	if q.mapped {
		return false, nil
	}
	q.mapped = true
	if err := q.beginLocked(); err != nil {
		_ = q.breakLocked(err) // the worker sees it
		return true, nil
	}
	q.ring.forget()
	// What waited is published now, and what was published before may not have
	// been notified of: the driver's wish was in the memory that was gone.
	if q.publishLocked() == nil {
		q.callLocked()
	}
	return true, nil
}

// resume looks at a ring that is back once: kicks were consumed meanwhile. It
// does not wait for the worker, which may itself wait for the frontend.
func (q *Queue) resume(back bool) {
	if back && q.life.worker != nil {
		q.life.kick.nudge()
	}
}

func (q *Queue) setCall(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.call.replace(fd)
	if q.started {
		q.callLocked() // the old descriptor may have swallowed an interrupt
	}
}

func (q *Queue) setErr(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.errfd.replace(fd)
}

// close stops the queue without a word to the guest and frees what it owns.
func (q *Queue) close() {
	q.stop(false)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.call.replace(-1)
	q.errfd.replace(-1)
	q.mem.end()
	q.mem = nil
}

// call calls an optional callback.
func call[T any](f func(T), v T) {
	if f != nil {
		f(v)
	}
}
