// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

// Bounds on the descriptors of a chain. Linux puts more descriptors into an
// indirect table than the queue has, up to 1024 in practice.
const (
	maxIndirect = 1024
	maxSegments = 4 * maxIndirect
)

// Chain is a chain of descriptors: a request of the driver. The device reads its
// first part, and writes its second part. A Chain is not safe for concurrent use.
type Chain struct {
	q     *Queue
	mem   *lease // until the device gives the chain back, then nil
	epoch uint64 // of the queue's run that popped it

	id    uint16 // by which the used element names the chain
	slots int    // how many slots of the ring it takes
	raw   []desc // its descriptors in a packed ring, if chains are tracked in flight

	segs     []Segment // readable ones, then writable ones
	writing  bool      // there is a writable one
	nread    int       // how many of segs are readable
	readLen  uint32
	writeLen uint32
	scratch  []byte // an indirect table that spans regions

	// For a chain that was popped and is not published as used.
	prev, next *Chain // in the list of those
	seq        uint64 // number in the order of popping
	resubmit   bool   // a backend before us left it in flight
	flight     uint16 // its place in the inflight area
	done       bool   // the device has pushed it
	written    uint32 // how many bytes the device wrote, once it is done
}

// Readable returns the part that the device reads, without empty descriptors.
// The slice is valid until the chain is given back.
func (c *Chain) Readable() []Segment { return c.segs[:c.nread:c.nread] }

// Writable returns the part that the device writes, without empty descriptors. Write
// to it by WriteAt only. The slice is valid until the chain is given back.
func (c *Chain) Writable() []Segment { return c.segs[c.nread:] }

// ReadableLen returns the length in bytes of the readable part.
func (c *Chain) ReadableLen() uint32 { return c.readLen }

// WritableLen returns the length in bytes of the writable part.
func (c *Chain) WritableLen() uint32 { return c.writeLen }

// ReadAt implements io.ReaderAt over the readable part: it copies out of guest
// memory. A fault is returned as a *[MemoryFault].
func (c *Chain) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read chain: negative offset")
	}
	err = shm.Guard(func() error {
		n = c.read(p, uint64(off))
		return nil
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt implements io.WriterAt over the writable part: it copies into guest
// memory and marks the written pages in the dirty log. If p does not fit it writes
// what fits, and returns io.ErrShortWrite. After the queue was stopped it writes
// nothing, and returns [ErrQueueStopped].
func (c *Chain) WriteAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("write chain: negative offset")
	}
	// A stop of the queue waits for this lock, so nothing is written after it.
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	if !c.q.ownsLocked(c) {
		return 0, ErrQueueStopped
	}
	if err := c.mem.Check(c.Writable(), uint64(off), uint64(len(p))); err != nil {
		return 0, fmt.Errorf("write chain: %w", err)
	}
	err = shm.Guard(func() error {
		n = c.write(p, uint64(off))
		return nil
	})
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// read copies what there is at off of the readable part to p.
func (c *Chain) read(p []byte, off uint64) (n int) {
	for i := 0; i < c.nread && n < len(p); i++ {
		b := c.segs[i].Bytes
		k := min(off, uint64(len(b)))
		n += copy(p[n:], b[k:])
		off -= k
	}
	return n
}

// write copies p to the writable part at off, as far as it reaches.
func (c *Chain) write(p []byte, off uint64) (n int) {
	for i := c.nread; i < len(c.segs) && n < len(p); i++ {
		s := &c.segs[i]
		k := min(off, uint64(len(s.Bytes)))
		copied := copy(s.Bytes[k:], p[n:])
		c.q.log.Mark(s.Addr+k, uint64(copied))
		n += copied
		off -= k
	}
	return n
}

// dropMemory ends the device's access to guest memory.
func (c *Chain) dropMemory() {
	c.mem.end()
	c.mem = nil
	c.segs, c.nread = c.segs[:0], 0 // the memory may be unmapped from now on
}

// clear forgets an earlier chain's descriptors.
func (c *Chain) clear() {
	c.segs, c.writing, c.nread, c.readLen, c.writeLen = c.segs[:0], false, 0, 0, 0
	c.raw = c.raw[:0]
}

// add adds the buffer that d describes.
func (c *Chain) add(d desc) error {
	if d.flags&descWrite != 0 {
		c.writing = true
	} else if c.writing {
		return errors.New("readable descriptor after a writable one")
	}
	if uint64(c.readLen)+uint64(c.writeLen)+uint64(d.len) > math.MaxUint32 {
		return errors.New("chain is longer than 4 GiB")
	}
	var err error
	if c.segs, err = c.mem.DMA(c.segs, d.addr, uint64(d.len), c.writing); err != nil {
		return err
	}
	if len(c.segs) > maxSegments {
		return fmt.Errorf("chain has more than %d segments", maxSegments)
	}
	if c.writing {
		c.writeLen += d.len
	} else {
		c.readLen += d.len
		c.nread = len(c.segs)
	}
	return nil
}

// table returns the indirect table that d points to: guest memory itself, or a
// copy if the table spans regions.
func (c *Chain) table(d desc, negotiated bool) ([]byte, error) {
	switch {
	case !negotiated:
		return nil, errors.New("indirect descriptor was not negotiated")
	case d.flags&descNext != 0:
		return nil, errors.New("indirect descriptor has a successor")
	case d.len == 0 || d.len%descSize != 0 || d.len > maxIndirect*descSize:
		return nil, fmt.Errorf("indirect table has a length of %d bytes", d.len)
	}
	segs, err := c.mem.DMA(c.segs[len(c.segs):], d.addr, uint64(d.len), false)
	if err != nil {
		return nil, err
	}
	if len(segs) == 1 {
		return segs[0].Bytes, nil
	}
	c.scratch = c.scratch[:0]
	for _, s := range segs {
		c.scratch = append(c.scratch, s.Bytes...)
	}
	return c.scratch, nil
}

// full says whether the device wrote the whole writable part. The used element of such
// a chain may be left out of an in-order batch, because the driver then assumes that.
func (c *Chain) full() bool { return c.written == c.writeLen }

// chainList is a list of outstanding chains in the order of popping.
type chainList struct {
	first, last *Chain
}

func (l *chainList) add(c *Chain) {
	c.prev, c.next = l.last, nil
	if l.last != nil {
		l.last.next = c
	} else {
		l.first = c
	}
	l.last = c
}

func (l *chainList) remove(c *Chain) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.last = c.prev
	}
	c.prev, c.next = nil, nil
}
