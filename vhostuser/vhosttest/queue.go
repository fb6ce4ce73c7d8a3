// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// ErrTimeout is returned if a wait for the backend times out.
var ErrTimeout = errors.New("backend took too long")

// Buffer is an element of a descriptor chain.
type Buffer struct {
	// Addr is a guest physical address.
	Addr uint64
	Len  uint32
	// Write says that the device writes the buffer.
	Write bool
}

func (b Buffer) flags() uint16 {
	if b.Write {
		return DescWrite
	}
	return 0
}

// Used is a chain that the device has used.
type Used struct {
	// Head is what Add returned: the head of the chain in a split ring, the
	// buffer id in a packed one.
	Head uint32
	// Len is how many bytes the device wrote.
	Len uint32
}

// Queue is the driver's side of a virtqueue, split or packed. It is not safe
// for concurrent use.
type Queue struct {
	Index, Size int
	// Desc, Avail and UsedRing are guest physical addresses: the descriptor
	// table, the available and the used ring, or, of a packed ring, the
	// descriptors and the event suppression structures of driver and device.
	Desc, Avail, UsedRing uint64
	// Kick and Call are the eventfds. They belong to the queue.
	Kick, Call *Event

	guest    *Guest
	features wire.Features
	ring     driverRing
	base     uint32 // for the next start

	chains  map[uint32]chain // outstanding ones
	order   []uint32         // of them, with IN_ORDER
	skipped []Used           // chains of a batch that has a single used element
	added   int              // slots made available since KickWanted
	err     error            // what the device did wrong
}

// chain is what the driver remembers of a chain.
type chain struct {
	ids      []uint16 // descriptors of a split ring
	slots    int      // of the ring
	writable uint32   // length of the part that the device writes
}

// driverRing is a ring in one of the two formats.
type driverRing interface {
	// reset clears the memory and starts at position idx.
	reset(idx uint16)
	base() uint32
	// add makes descriptors available as one chain.
	add(ds []Desc) (id uint32, c chain, err error)
	// used returns the next used element, if there is one. The driver goes on
	// behind it by skip, with all chains that it stands for.
	used() (Used, bool)
	skip(cs []chain)
	// kickWanted is asked after n slots were made available.
	kickWanted(n int) bool
	askCalls()
	refuseCalls(on bool)
	// usedBase returns the base at which a backend goes on that knows only
	// what the device has used.
	usedBase(q *Queue) (base uint32, used uint16)
}

// NewQueue allocates a ring of the given size in the guest. It is a split ring
// until Negotiate says otherwise.
func NewQueue(g *Guest, index, size int) (*Queue, error) {
	kick, err := NewEvent()
	if err != nil {
		return nil, err
	}
	callfd, err := NewEvent()
	if err != nil {
		kick.Close()
		return nil, err
	}
	q := &Queue{Index: index, Size: size, Kick: kick, Call: callfd, guest: g}
	q.Desc = g.Alloc(uint64(size) * 16)
	q.Avail = g.Alloc(uint64(size)*2 + 6)
	q.UsedRing = g.Alloc(uint64(size)*8 + 6)
	q.ring = newSplit(q)
	q.Reset()
	return q, nil
}

// Negotiate makes the driver use RING_PACKED, EVENT_IDX and IN_ORDER as f says.
// A change of the ring's format resets it. Frontend.Start calls it.
func (q *Queue) Negotiate(f wire.Features) {
	packed := q.Packed()
	q.features = f
	switch {
	case q.Packed() == packed:
		return
	case q.Packed():
		q.ring = newPacked(q)
	default:
		q.ring = newSplit(q)
	}
	q.Reset()
}

// Packed says whether the ring is a packed one.
func (q *Queue) Packed() bool { return q.features.Has(wire.FeatureRingPacked) }

func (q *Queue) eventIdx() bool { return q.features.Has(wire.FeatureEventIdx) }

// Reset forgets all buffers and clears the ring, as a driver does that
// initialises the device.
func (q *Queue) Reset() { q.Warp(0) }

// Warp makes an idle ring start at position idx, to reach its wrap soon.
func (q *Queue) Warp(idx uint16) {
	q.chains, q.order, q.skipped, q.added, q.err = make(map[uint32]chain), nil, nil, 0, nil
	q.ring.reset(idx)
	q.base = q.ring.base()
}

// Close closes the eventfds.
func (q *Queue) Close() {
	q.Kick.Close()
	q.Call.Close()
}

// Addr describes where the ring is, as SET_VRING_ADDR does.
func (q *Queue) Addr(flags uint32) wire.VringAddr {
	return wire.VringAddr{
		Index: uint32(q.Index), Flags: flags,
		Desc: q.guest.User(q.Desc), Avail: q.guest.User(q.Avail), Used: q.guest.User(q.UsedRing),
		Log: q.UsedRing,
	}
}

// Base returns the base at which the next start begins.
func (q *Queue) Base() uint32 { return q.base }

// Resume makes the next start begin at the device's used index, as QEMU does when it lost the
// backend. (QEMU cannot do that for a packed ring, because only the driver knows the position.)
func (q *Queue) Resume() { q.base, _ = q.ring.usedBase(q) }

// Add makes a chain of bufs available, without a kick, and returns its head.
func (q *Queue) Add(bufs ...Buffer) (uint32, error) {
	ds := make([]Desc, len(bufs))
	for i, b := range bufs {
		ds[i] = Desc{Addr: b.Addr, Len: b.Len, Flags: b.flags()}
	}
	return q.add(ds, bufs)
}

// AddIndirect makes a chain of bufs available through a table at the guest
// physical address table, and returns its head.
func (q *Queue) AddIndirect(table uint64, bufs ...Buffer) (uint32, error) {
	var b []byte
	for i, buf := range bufs {
		d := Desc{Addr: buf.Addr, Len: buf.Len, Flags: buf.flags()}
		if i+1 < len(bufs) && !q.Packed() {
			d.Flags, d.Last = d.Flags|DescNext, uint16(i+1)
		}
		b = d.appendTo(b, q.Packed())
	}
	q.guest.Write(table, b)
	return q.add([]Desc{{Addr: table, Len: uint32(len(b)), Flags: DescIndirect}}, bufs)
}

func (q *Queue) add(ds []Desc, bufs []Buffer) (uint32, error) {
	id, c, err := q.ring.add(ds)
	if err != nil {
		return 0, err
	}
	for _, b := range bufs {
		if b.Write {
			c.writable += b.Len
		}
	}
	q.chains[id] = c
	q.added += c.slots
	if q.features.Has(wire.FeatureInOrder) {
		q.order = append(q.order, id)
	}
	return id, nil
}

// KickWanted says whether the device wants a kick for what was added since
// the last call.
func (q *Queue) KickWanted() bool {
	shm.Fence()
	n := q.added
	q.added = 0
	return n > 0 && q.ring.kickWanted(n)
}

// Submit kicks the device if it wants that.
func (q *Queue) Submit() error {
	if !q.KickWanted() {
		return nil
	}
	return q.Kick.Raise()
}

// SetNoInterrupt asks the device not to interrupt, or to do so.
func (q *Queue) SetNoInterrupt(on bool) { q.ring.refuseCalls(on) }

// AskInterrupt asks the device, with EVENT_IDX, to interrupt when it uses the
// next chain. Wait does it by itself.
func (q *Queue) AskInterrupt() { q.ring.askCalls() }

// Poll takes the next used chain, if there is one. After the device violated the rules it takes
// none; Wait reports the error.
func (q *Queue) Poll() (Used, bool) {
	if len(q.skipped) > 0 {
		u := q.skipped[0]
		q.skipped = q.skipped[1:]
		return u, true
	}
	if q.err != nil {
		return Used{}, false
	}
	u, ok := q.ring.used()
	if !ok {
		return Used{}, false
	}
	c, ok := q.chains[u.Head]
	if !ok {
		q.err = fmt.Errorf("queue %d: used element names %d, which is not outstanding", q.Index, u.Head)
		return Used{}, false
	}
	if q.features.Has(wire.FeatureInOrder) {
		return q.takeBatch(u)
	}
	delete(q.chains, u.Head)
	q.ring.skip([]chain{c})
	return u, true
}

// takeBatch takes the chains up to and with u, in the order in which they were
// added. Those before u count as completely written.
func (q *Queue) takeBatch(u Used) (Used, bool) {
	var cs []chain
	for {
		id := q.order[0]
		q.order = q.order[1:]
		c := q.chains[id]
		delete(q.chains, id)
		cs = append(cs, c)
		if id == u.Head {
			q.skipped = append(q.skipped, u)
			break
		}
		q.skipped = append(q.skipped, Used{Head: id, Len: c.writable})
	}
	q.ring.skip(cs)
	return q.Poll()
}

// Wait takes the next used chain; it waits for interrupts.
func (q *Queue) Wait(timeout time.Duration) (Used, error) {
	deadline := time.Now().Add(timeout)
	for {
		if u, ok := q.Poll(); ok {
			return u, nil
		}
		if q.err != nil {
			return Used{}, q.err
		}
		if q.eventIdx() {
			q.ring.askCalls()
			shm.Fence()
			if u, ok := q.Poll(); ok {
				return u, nil
			}
		}
		if err := q.Call.Wait(time.Until(deadline)); err != nil {
			return Used{}, fmt.Errorf("wait for used buffer of queue %d: %w", q.Index, err)
		}
	}
}

// Outstanding returns how many chains the device has not used yet.
func (q *Queue) Outstanding() int { return len(q.chains) }

// UsedIdx returns the device's index. That of a packed ring, which has none in
// memory, counts the chains that the driver took or can see as used.
func (q *Queue) UsedIdx() uint16 {
	_, used := q.ring.usedBase(q)
	return used
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// ringMem is memory of a ring.
type ringMem struct {
	g    *Guest
	addr uint64
	b    []byte
}

func (g *Guest) ringMem(addr, n uint64) ringMem {
	return ringMem{g: g, addr: addr, b: g.at(addr)[:n]}
}

func (m ringMem) load16(off int) uint16 { return shm.Load16(m.b, off) }
func (m ringMem) load32(off int) uint32 { return binary.LittleEndian.Uint32(m.b[off:]) }

func (m ringMem) store16(off int, v uint16) {
	shm.Store16(m.b, off, v)
	m.g.touch(m.addr+uint64(off), 2)
}

func (m ringMem) write(off int, p []byte) {
	copy(m.b[off:], p)
	m.g.touch(m.addr+uint64(off), uint64(len(p)))
}

func (m ringMem) clear() {
	clear(m.b)
	m.g.touch(m.addr, uint64(len(m.b)))
}
