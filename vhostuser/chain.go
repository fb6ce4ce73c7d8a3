// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

// Bounds on what a driver may make us collect. Linux puts more descriptors
// into an indirect table than the queue has, up to 1024 in practice.
const (
	maxIndirect = 1024
	maxSegments = 4 * maxIndirect
)

// Segment is a contiguous piece of guest memory.
type Segment struct {
	// Addr is the guest physical address.
	Addr uint64
	// Bytes aliases guest memory, which driver and frontend may change at any
	// time: read a field once, and inside [Guard]. It must not be written to,
	// since such writes are missing from the dirty log.
	Bytes []byte
}

// Chain is a chain of descriptors: a request of the driver, with a part that
// the device reads followed by a part that it writes. A Chain is not safe for
// concurrent use.
type Chain struct {
	q     *Queue
	mem   *Memory // retained while outstanding, nil otherwise
	epoch uint64  // of the queue's run that popped it
	pos   uint16  // position in the available ring
	head  uint16

	segs     []Segment // readable ones, then writable ones
	nread    int       // how many of segs are readable
	readLen  uint32
	writeLen uint32
}

// Readable returns the part that the device reads, without empty descriptors.
// The slice is valid until the chain is given back.
func (c *Chain) Readable() []Segment { return c.segs[:c.nread:c.nread] }

// Writable returns the part that the device writes, by WriteAt.
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
		forRange(c.Readable(), uint64(off), uint64(len(p)), func(b []byte, _ uint64) {
			n += copy(p[n:], b)
		})
		return nil
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt implements io.WriterAt over the writable part: it copies into guest
// memory and marks what it wrote in the dirty log. It returns
// io.ErrShortWrite, having written what fits, when p does not fit, and
// [ErrQueueStopped], having written nothing, after the queue was stopped.
func (c *Chain) WriteAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("write chain: negative offset")
	}
	// The lock keeps the frontend's stop waiting: nothing is written after it.
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	if !c.q.ownsLocked(c) {
		return 0, ErrQueueStopped
	}
	err = shm.Guard(func() error {
		forRange(c.Writable(), uint64(off), uint64(len(p)), func(b []byte, addr uint64) {
			k := copy(b, p[n:])
			c.q.log.mark(addr, uint64(k))
			n += k
		})
		return nil
	})
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// forRange calls f with the pieces of n bytes at off in the concatenated
// segments, as far as they reach, and with their guest addresses.
func forRange(segs []Segment, off, n uint64, f func(b []byte, addr uint64)) {
	for _, s := range segs {
		size := uint64(len(s.Bytes))
		if off >= size {
			off -= size
			continue
		}
		if n == 0 {
			return
		}
		k := min(n, size-off)
		f(s.Bytes[off:off+k], s.Addr+off)
		off, n = 0, n-k
	}
}

// collect follows the chain that begins at c.head. It reads every descriptor
// once, and never more of them than the table holds, so a loop is found.
func (c *Chain) collect(r *ring, indirectOK bool) error {
	c.segs, c.nread, c.readLen, c.writeLen = c.segs[:0], 0, 0, 0
	table, limit := r.desc, r.size
	var (
		indirect, writing bool
		total             uint64
	)
	for i, seen := int(c.head), 0; ; seen++ {
		if seen == limit {
			return errors.New("descriptors form a loop")
		}
		d := readDesc(table, i)
		if d.flags&descIndirect != 0 {
			switch {
			case !indirectOK:
				return errors.New("indirect descriptor was not negotiated")
			case indirect:
				return errors.New("indirect descriptor inside an indirect table")
			case d.flags&descNext != 0:
				return errors.New("indirect descriptor has a successor")
			}
			var err error
			if table, err = c.indirectTable(d); err != nil {
				return err
			}
			indirect, limit = true, len(table)/descSize
			i, seen = 0, -1
			continue
		}

		if d.flags&descWrite != 0 {
			writing = true
		} else if writing {
			return errors.New("readable descriptor after a writable one")
		}
		if total += uint64(d.len); total > math.MaxUint32 {
			return errors.New("chain is longer than 4 GiB")
		}
		var err error
		if c.segs, err = c.mem.dma(c.segs, d.addr, uint64(d.len), writing); err != nil {
			return err
		}
		if len(c.segs) > maxSegments {
			return fmt.Errorf("chain has more than %d segments", maxSegments)
		}
		if writing {
			c.writeLen += d.len
		} else {
			c.readLen += d.len
			c.nread = len(c.segs)
		}

		if d.flags&descNext == 0 {
			return nil
		}
		if i = int(d.next); i >= limit {
			return fmt.Errorf("next descriptor %d is outside a table of %d", i, limit)
		}
	}
}

// indirectTable returns the table that d points to: guest memory itself, or a
// copy if the table spans regions.
func (c *Chain) indirectTable(d desc) ([]byte, error) {
	if d.len == 0 || d.len%descSize != 0 || d.len > maxIndirect*descSize {
		return nil, fmt.Errorf("indirect table has a length of %d bytes", d.len)
	}
	segs, err := c.mem.dma(c.segs[len(c.segs):], d.addr, uint64(d.len), false)
	if err != nil {
		return nil, err
	}
	if len(segs) == 1 {
		return segs[0].Bytes, nil
	}
	var table []byte
	for _, s := range segs {
		table = append(table, s.Bytes...)
	}
	return table, nil
}
