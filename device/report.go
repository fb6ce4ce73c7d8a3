// SPDX-License-Identifier: Apache-2.0

package device

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// drainReports handles all messages of reportq, on its goroutine.
func (d *Device) drainReports(q *vhostuser.Queue) {
	for {
		c, err := q.Pop()
		if c == nil || err != nil {
			d.queueError("reportq", err)
			return
		}
		d.mu.Lock()
		d.message(c)
		d.mu.Unlock()
		if err := q.Push(c, 0); err != nil {
			d.queueError("reportq", err)
			return
		}
		if err := q.Notify(); err != nil {
			d.queueError("reportq", err)
			return
		}
	}
}

// queueError handles what ended the use of a queue; nil is no error. A stopped
// queue is the frontend's doing and has its own callback.
func (d *Device) queueError(name string, err error) {
	if err == nil || errors.Is(err, vhostuser.ErrQueueStopped) {
		return
	}
	d.lg.Warn("queue is unusable until the driver resets it", zap.String("queue", name), zap.Error(err))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finish(window.StatusBadReport, err.Error())
}

// message handles one message. d.mu is held.
func (d *Device) message(c *vhostuser.Chain) {
	arrived := time.Now()
	h, err := header(c)
	if err == nil {
		switch h.Type {
		case protocol.MessageHello:
			err = d.hello(h, c)
		default:
			if d.open == nil || h.Generation != d.open.generation {
				d.lg.Info("message for no open request", zap.Stringer("message", h))
				return
			}
			if h.Type == protocol.MessageStarted {
				if d.open.started.IsZero() {
					d.open.started = arrived
				}
				return
			}
			err = d.report(h, c, arrived)
		}
	}
	if err != nil {
		d.lg.Warn("malformed message from the driver", zap.Error(err))
		d.finish(window.StatusBadReport, err.Error())
	}
}

// header reads and checks the header, and that the chain has the length that
// the header says [FBPP-MSG-1].
func header(c *vhostuser.Chain) (protocol.Header, error) {
	var p [protocol.HeaderSize]byte
	if c.WritableLen() != 0 {
		return protocol.Header{}, fmt.Errorf("message has a writable part: %w", protocol.ErrMalformed)
	}
	n := min(c.ReadableLen(), protocol.HeaderSize)
	if _, err := c.ReadAt(p[:n], 0); err != nil {
		return protocol.Header{}, fmt.Errorf("read message header: %w", err)
	}
	h, err := protocol.DecodeHeader(p[:n])
	if err != nil {
		return h, err
	}
	if h.Size() != uint64(c.ReadableLen()) {
		return h, fmt.Errorf("%v in %d bytes instead of %d: %w", h, c.ReadableLen(), h.Size(), protocol.ErrMalformed)
	}
	return h, nil
}

// report adds a REPORT's records to the open request, and ends it at LAST.
func (d *Device) report(h protocol.Header, c *vhostuser.Chain, arrived time.Time) error {
	x := d.open
	if x.pageShift != 0 && x.pageShift != h.PageShift {
		return fmt.Errorf("page shift changes from %d to %d: %w", x.pageShift, h.PageShift, protocol.ErrMalformed)
	}
	x.pageShift = h.PageShift
	x.resumed = x.resumed || h.Flags&protocol.FlagResumed != 0
	x.truncated = x.truncated || h.Flags&protocol.FlagTruncated != 0
	x.records += uint64(h.Count)
	if x.records > 2*d.free.Capacity() { // also what bounds an endless report [FBPP-REP-7]
		return fmt.Errorf("%d records for %d pages of memory: %w", x.records, d.free.Capacity(), protocol.ErrMalformed)
	}
	if h.Status != protocol.StatusOK {
		d.finish(window.StatusRefused, "the driver answered "+h.Status.String())
		return nil
	}

	err := eachRun(c, protocol.HeaderSize, int(h.Count)*protocol.RecordSize, func(p []byte) error {
		return d.free.AddRecords(p, h.PageShift, x.resumed)
	})
	x.decode += time.Since(arrived)
	if err != nil {
		return err
	}
	if h.Flags&protocol.FlagLast == 0 {
		return nil
	}
	if x.trailer, err = trailer(h, c); err != nil {
		return err
	}
	if x.trailer.Records != x.records {
		return fmt.Errorf("trailer counts %d records, %d came: %w", x.trailer.Records, x.records, protocol.ErrMalformed)
	}
	d.finish(window.StatusOK, "")
	return nil
}

func trailer(h protocol.Header, c *vhostuser.Chain) (protocol.Trailer, error) {
	var p [protocol.TrailerSize]byte
	if _, err := c.ReadAt(p[:], int64(h.Size()-protocol.TrailerSize)); err != nil {
		return protocol.Trailer{}, fmt.Errorf("read trailer: %w", err)
	}
	return protocol.DecodeTrailer(p[:])
}

// eachRun calls f with the n bytes from offset off of a chain's readable part,
// in pieces of whole records, without copying: f sees guest memory. A record
// that lies across two segments is put together in a buffer.
func eachRun(c *vhostuser.Chain, off, n int, f func(p []byte) error) error {
	return vhostuser.Guard(func() error {
		var split [protocol.RecordSize]byte
		have := 0 // bytes in split
		for _, s := range c.Readable() {
			p := s.Bytes
			if off >= len(p) {
				off -= len(p)
				continue
			}
			p = p[off:min(len(p), off+n)]
			off, n = 0, n-len(p)

			if have > 0 {
				k := copy(split[have:], p)
				p, have = p[k:], have+k
				if have < len(split) {
					continue
				}
				if err := f(split[:]); err != nil {
					return err
				}
				have = 0
			}
			whole := len(p) &^ (protocol.RecordSize - 1)
			if err := f(p[:whole]); err != nil {
				return err
			}
			have = copy(split[:], p[whole:])
			if n == 0 {
				break
			}
		}
		return nil
	})
}
