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
	switch {
	case q.started:
		return errors.New("set ring size: ring is started")
	case n == 0 || n&(n-1) != 0 || n > uint32(limit):
		return fmt.Errorf("set ring size: %d is not a power of two up to %d", n, limit)
	}
	q.set.size = int(n)
	return nil
}

func (q *Queue) setBase(n uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.started:
		return errors.New("set ring base: ring is started")
	case n > 0xffff:
		return fmt.Errorf("set ring base: %#x is not an index of a split ring", n)
	}
	q.lastAvail = uint16(n)
	return nil
}

// setAddr takes effect at once for a started ring: the frontend switches
// logging of the used ring that way.
func (q *Queue) setAddr(a wire.VringAddr) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a.Flags&^uint32(wire.VringFLog) != 0 {
		return fmt.Errorf("set ring address: unknown flags in %v", a)
	}
	if q.set.size == 0 {
		return errors.New("set ring address: ring has no size yet")
	}
	r, err := mapRing(q.mem, q.set.size, a, q.log)
	if err != nil && !isMiss(err) {
		return fmt.Errorf("set ring address: %w", err)
	}
	q.set.addr, q.set.hasAddr = a, true
	if q.started {
		q.ring, q.mapped = r, err == nil
	}
	return nil
}

// start begins to use the ring. It consumes kick, also when it fails.
func (q *Queue) start(kick *kickFD) error {
	if q.isStarted() {
		// A new kick descriptor for a started ring.
		q.stopWorker()
		q.life.kick.close()
		q.life.kick = kick
		q.update()
		return nil
	}
	if err := q.open(); err != nil {
		kick.close()
		return err
	}
	q.life.kick = kick
	q.update()
	return nil
}

func (q *Queue) isStarted() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.started
}

func (q *Queue) open() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.set.size == 0 || !q.set.hasAddr {
		return errors.New("start ring: its size or address is unknown")
	}
	r, err := mapRing(q.mem, q.set.size, q.set.addr, q.log)
	if err != nil && !isMiss(err) {
		return fmt.Errorf("start ring: %w", err)
	}
	q.ring, q.mapped, q.usedKnown = r, err == nil, false
	if err := q.readUsedLocked(); err != nil {
		return fmt.Errorf("start ring: %w", err)
	}
	q.broken = nil
	q.epoch++
	q.pending = make([]*Chain, r.size)
	q.deferred = nil
	q.started = true
	// A backend before us may have died between a completion and its
	// interrupt. One interrupt too many does no harm.
	return q.call.raise()
}

// readUsedLocked learns where the used ring goes on, once the ring is mapped.
func (q *Queue) readUsedLocked() error {
	if !q.mapped || q.usedKnown {
		return nil
	}
	return shm.Guard(func() error {
		q.usedIdx, q.usedKnown = q.ring.usedIdx(), true
		return nil
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
		q.admit()
		call(q.life.dev.QueueStarted, q)
	}
	if run {
		q.startWorker()
	}
}

// admit asks the driver for kicks, which a backend before us may have
// suppressed. It waits until the ring is enabled, since a frontend that
// restarts a device while it migrates gives the dirty log between start and
// enable.
func (q *Queue) admit() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.mapped {
		return
	}
	if err := shm.Guard(func() error {
		if q.ring.usedFlags() != 0 {
			q.ring.publish(q.usedIdx)
		}
		return nil
	}); err != nil {
		// The worker and the device see the broken queue themselves.
		_ = q.breakLocked(err)
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

// stop stops the ring and returns the index of the first available entry that
// the next one to start it has to process. With complete, outstanding chains
// that this index cannot express are completed; without, as for a frontend
// that is gone, nothing is written.
func (q *Queue) stop(complete bool) uint16 {
	if complete {
		// The device may still complete or give back chains.
		q.halt()
	}
	q.mu.Lock()
	if q.started {
		q.started = false
		q.rollBackLocked(complete)
		q.mapped = false
		q.ring = ring{}
	}
	base := q.lastAvail
	q.mu.Unlock()

	q.halt()
	q.life.kick.close()
	q.life.kick = nil
	return base
}

// rollBackLocked makes lastAvail the base to report.
func (q *Queue) rollBackLocked(complete bool) {
	slot := func(pos uint16) **Chain { return &q.pending[int(pos)&(len(q.pending)-1)] }
	for {
		p := slot(q.lastAvail - 1)
		if *p == nil || (*p).pos != q.lastAvail-1 {
			break
		}
		*p = nil
		q.lastAvail--
	}
	var lost []usedEntry
	for _, c := range q.pending {
		if c != nil {
			lost = append(lost, usedEntry{pos: c.pos, head: c.head})
		}
	}
	clear(q.pending)
	if len(lost) == 0 {
		return
	}
	q.lg.Warn("stopped queue has chains outstanding before completed ones", zap.Int("queue", q.index),
		zap.Int("chains", len(lost)))
	if !complete || !q.mapped || q.broken != nil {
		return
	}
	for _, e := range lost {
		if q.completeLocked(e) != nil {
			return
		}
	}
	if err := q.call.raise(); err != nil {
		q.lg.Warn("cannot interrupt the driver", zap.Error(err))
	}
}

// setMemory makes the queue use another memory table.
func (q *Queue) setMemory(m *Memory) {
	q.mu.Lock()
	old := q.mem
	m.Retain()
	q.mem = m
	back := false
	if q.started {
		r, err := mapRing(m, q.set.size, q.set.addr, q.log)
		back = err == nil && !q.mapped
		q.ring, q.mapped = r, err == nil
		if err != nil {
			q.lg.Debug("ring is paused: its memory was removed", zap.Int("queue", q.index), zap.Error(err))
		}
		if err := q.readUsedLocked(); err != nil {
			_ = q.breakLocked(err) // the worker sees it
		}
		if back {
			q.flushLocked()
		}
	}
	q.mu.Unlock()
	if old != nil {
		old.Release()
	}
	if back && q.life.worker != nil {
		// Kicks were consumed while the ring was away: look once.
		q.stopWorker()
		q.admit()
		q.update()
	}
}

// flushLocked puts the completions on the used ring that could not be put
// there while the ring had no memory.
func (q *Queue) flushLocked() {
	if len(q.deferred) == 0 {
		return
	}
	entries := q.deferred
	q.deferred = nil
	for _, e := range entries {
		q.pending[q.ring.slot(e.pos)] = nil
		if q.broken == nil {
			_ = q.completeLocked(e) // breaks the queue, which Pop reports
		}
	}
	if err := q.call.raise(); err != nil {
		q.lg.Warn("cannot interrupt the driver", zap.Error(err))
	}
}

func (q *Queue) setCall(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.call.replace(fd)
	if q.started {
		// The old descriptor may have swallowed an interrupt.
		if err := q.call.raise(); err != nil {
			q.lg.Warn("cannot interrupt the driver", zap.Error(err))
		}
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
	if q.mem != nil {
		q.mem.Release()
		q.mem = nil
	}
}

// call calls an optional callback.
func call[T any](f func(T), v T) {
	if f != nil {
		f(v)
	}
}
