// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// setup is what the frontend has set for a ring.
type setup struct {
	size    int // zero: not known
	addr    wire.VringAddr
	hasAddr bool
	base    uint32
	noBase  bool // the last base was refused
	refused bool // a part of the setup was refused since the ring was stopped

	inflight      area // where to track chains, if it has memory
	inflightLimit int  // how many descriptors it has room for
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
		err = newRing(q.dialect(), q.set.size).attach(q.mem.Snapshot, a, q.log)
	}
	if err == nil || guestmem.IsMiss(err) {
		q.set.addr, q.set.hasAddr = a, true
		err = nil
	}
	q.mu.Unlock()
	if err != nil {
		return fmt.Errorf("ring %d cannot be used: %w", q.index, err)
	}
	q.resume(back)
	return nil
}

// forgetSize, forgetBase and forgetAddr are called after a request for that part was refused. The
// frontend wanted to change the earlier value, so the ring does not start until it sends another.
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

func (q *Queue) setCall(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.call.Replace(fd)
	if q.started {
		q.callLocked() // the old descriptor may have swallowed an interrupt
	}
}

func (q *Queue) setErr(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.errfd.Replace(fd)
}

// setInflight gives a queue that is not started its part of the memory.
func (q *Queue) setInflight(part []byte, limit int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.set.inflight, q.set.inflightLimit = area{b: part}, limit
}

// setMemory makes the queue use another memory table.
func (q *Queue) setMemory(m *guestmem.Snapshot) {
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

// attachLocked looks up the started ring in memory. back says that the ring was not mapped before:
// then it publishes what waited. After an error the ring stays as it is, but a missing translation
// pauses it.
func (q *Queue) attachLocked(a wire.VringAddr) (back bool, err error) {
	if err := q.ring.attach(q.mem.Snapshot, a, q.log); err != nil {
		q.mapped = q.mapped && !guestmem.IsMiss(err)
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

// resume makes the worker look at a ring that is mapped again, because kicks may have been consumed
// meanwhile. It does not wait for the worker, which may itself wait for the frontend.
func (q *Queue) resume(back bool) {
	if back && q.life.worker != nil {
		q.life.kick.nudge()
	}
}
