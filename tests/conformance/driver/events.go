// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"bytes"
	"errors"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// markSize is how many bytes of an event buffer are compared at most.
const markSize = 4096

// mark is what the device writes into the event buffers that it keeps. When a byte
// has changed, the driver has written a buffer of the device.
var mark = bytes.Repeat([]byte{0x5a, 0xc3, 0x96}, markSize/3)

// buffer is an event buffer that the device has not used yet.
type buffer struct {
	chain  *vhostuser.Chain
	marked []byte // what the device wrote; nil if it could not
}

// collect pops all buffers that the driver has made available, and writes the mark
// into them.
// d.mu is held.
func (d *device) collect() {
	for d.eventq != nil {
		c, err := d.eventq.Pop()
		if err != nil {
			d.queueError(d.eventq, err)
		}
		if c == nil || err != nil {
			return
		}
		d.judge.saw(ruleBuffers, ruleQueue)
		if c.WritableLen() < protocol.EventSize || c.ReadableLen() != 0 {
			d.judge.broke(ruleBuffers, "a buffer of eventq has %d writable and %d readable bytes",
				c.WritableLen(), c.ReadableLen())
		}
		b := &buffer{chain: c, marked: mark[:min(len(mark), int(c.WritableLen()))]}
		if _, err := c.WriteAt(b.marked, 0); err != nil {
			d.judge.note("device: mark event buffer: %v", err)
			b.marked = nil
		}
		d.buffers = append(d.buffers, b)
	}
}

// taken removes the oldest buffer, or the newest, from the list and returns it. It
// returns nil when the driver has made none available. d.mu is held.
func (d *device) taken(newest bool) *buffer {
	d.collect()
	n := len(d.buffers)
	if n == 0 {
		return nil
	}
	if newest {
		b := d.buffers[n-1]
		d.buffers = d.buffers[:n-1]
		return b
	}
	b := d.buffers[0]
	d.buffers = d.buffers[1:]
	return b
}

// check reports a breach when the driver has written a buffer. d.mu is held.
func (d *device) check(b *buffer) {
	found := make([]byte, 0, len(b.marked))
	err := vhostuser.Guard(func() error {
		for _, s := range b.chain.Writable() {
			found = append(found, s.Bytes[:min(len(s.Bytes), cap(found)-len(found))]...)
		}
		return nil
	})
	if err != nil || b.marked == nil {
		return
	}
	d.judge.saw(ruleHandsOff)
	for i := range found {
		if found[i] != b.marked[i] {
			d.judge.broke(ruleHandsOff, "byte %d of the event buffer at %#x was %#x,"+
				" and has become %#x while the buffer was the device's",
				i, spans(b.chain.Writable())[0].begin, b.marked[i], found[i])
			return
		}
	}
}

// errNoBuffer says that the driver has made no event buffer available.
var errNoBuffer = errors.New("the driver has left no event buffer")

// use says how a buffer is used.
type use struct {
	newest bool // the buffer that came last instead of the one that came first
	empty  bool // with length 0, though an event was written into it
}

// put writes an event into a buffer and uses the buffer. It does not interrupt. d.mu
// is held.
func (d *device) put(e protocol.Event, how use) error {
	var p [protocol.EventSize]byte
	e.Encode(p[:])
	return d.putBytes(p[:], protocol.EventSize, how)
}

// putBytes is put for an encoded event, which is put into a buffer of at least least bytes.
// d.mu is held.
func (d *device) putBytes(p []byte, least uint32, how use) error {
	for {
		b := d.taken(how.newest)
		switch {
		case d.eventq == nil:
			return errStopped
		case b == nil:
			return errNoBuffer
		}
		d.check(b)
		fits := b.chain.WritableLen() >= least
		written := uint32(0)
		if fits {
			if _, err := b.chain.WriteAt(p, 0); err != nil {
				d.judge.note("device: write event: %v", err)
			}
			if !how.empty {
				written = uint32(len(p))
			}
		}
		if err := d.eventq.Push(b.chain, written); err != nil {
			d.queueError(d.eventq, err)
			return errStopped
		}
		if fits { // else it was skipped [FBPP-EV-2]
			return nil
		}
	}
}

// returnBuffers gives all buffers back. Those that were popped last are given back
// unused; the ring cannot express this for the others. d.mu is held.
func (d *device) returnBuffers(q *vhostuser.Queue) {
	for i := len(d.buffers) - 1; i >= 0; i-- {
		c := d.buffers[i].chain
		if errors.Is(q.Unpop(c), vhostuser.ErrUnpopOrder) {
			// It is used without an event [FBPP-EV-8]. An error says that the queue is
			// stopped.
			_ = q.Push(c, 0)
		}
	}
	d.buffers = nil
}
