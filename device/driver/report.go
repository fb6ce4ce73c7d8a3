// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// maxReported bounds the guest memory, in bytes, that the driver's own figure can
// make the device expect. Not all of it need be shared with the device.
const maxReported = 16 << 40

// drainReports handles all messages of reportq, on its goroutine.
func (s *Source) drainReports(q *vhostuser.Queue) {
	for !q.Abandoned() {
		c, err := q.Pop()
		if c == nil || err != nil {
			s.reportqError(err)
			return
		}
		s.mu.Lock()
		_ = s.message(c, nil) // it is logged, and has ended the request
		s.mu.Unlock()
		if q.Abandoned() {
			// The connection ended while the message was handled. The device must
			// not write to the ring any more, and there is nothing left to read.
			_ = q.Unpop(c)
			return
		}
		if err := q.Push(c, 0); err != nil {
			s.reportqError(err)
			return
		}
		if err := q.Notify(); err != nil {
			s.reportqError(err)
			return
		}
	}
}

// reportqError ends the open request when reportq is broken. It ignores nil, and
// ErrQueueStopped, which QueueStopping handles.
func (s *Source) reportqError(err error) {
	if err == nil || errors.Is(err, vhostuser.ErrQueueStopped) {
		return
	}
	s.lg.Warn("queue is unusable until the driver resets it",
		zap.String("queue", "reportq"), zap.Error(err))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.completeAt(nil, source.Failf(protocol.AnswerBadReport, "%v", err))
}

// content is the bytes of a message: a chain of reportq, or what came by the serial port.
type content interface {
	io.ReaderAt
	Readable() []vhostuser.Segment
	ReadableLen() uint32
	WritableLen() uint32
}

var _ content = (*vhostuser.Chain)(nil)

// message handles one message, by the serial port unless from is nil. The error says that
// it is malformed. s.mu is held, as in all that follows.
func (s *Source) message(c content, from *port) error {
	arrived := time.Now()
	if s.open == nil || s.open.port == from {
		s.messages++
	}
	h, err := header(c)
	if err == nil {
		switch {
		case h.Type == protocol.MessageHello:
			err = s.hello(h, c, from)
		case h.Type.IsProgram():
			err = s.programMessage(h, c)
		default:
			// The generation is what tells a report of now from one of an earlier request,
			// of before a reset, or of another host.
			x := s.open
			if x == nil || x.port != from || h.Generation != x.generation {
				s.lg.Info("message for no open request", zap.Stringer("message", h))
				return nil
			}
			if h.Type == protocol.MessageStarted {
				if x.started.IsZero() {
					x.started = arrived
				}
				return nil
			}
			err = s.report(h, c, arrived)
		}
	}
	if err != nil {
		s.lg.Warn("malformed message from the driver",
			zap.Bool("port", from != nil), zap.Error(err))
		s.completeAt(from, source.Failf(protocol.AnswerBadReport, "%v", err))
	}
	return err
}

// header reads and checks the header. The chain must have exactly the length that
// the header implies [FBPP-MSG-1].
func header(c content) (protocol.Header, error) {
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
		return h, fmt.Errorf("%v in %d bytes instead of %d: %w",
			h, c.ReadableLen(), h.Size(), protocol.ErrMalformed)
	}
	return h, nil
}

// report adds a REPORT's records to the open request, and ends it at LAST.
func (s *Source) report(h protocol.Header, c content, arrived time.Time) error {
	x := s.open
	if x.pageShift != 0 && x.pageShift != h.PageShift {
		return fmt.Errorf("page shift changes from %d to %d: %w",
			x.pageShift, h.PageShift, protocol.ErrMalformed)
	}
	x.pageShift = h.PageShift
	x.resumed = x.resumed || h.Flags&protocol.FlagResumed != 0
	f := x.findings
	f.Truncated = f.Truncated || h.Flags&protocol.FlagTruncated != 0
	f.Items += uint64(h.Count)
	// This also bounds an endless report [FBPP-REP-7]. Blocks may repeat after
	// RESUMED, hence the factor.
	if frames := s.memory(f.Free); f.Items > 2*frames {
		return fmt.Errorf("%d records for %d pages of memory: %w",
			f.Items, frames, protocol.ErrMalformed)
	}
	if h.Status != protocol.StatusOK {
		s.complete(source.Failf(protocol.AnswerRefused, "the driver answered %v", h.Status))
		return nil
	}

	err := eachRun(c, protocol.HeaderSize, int(h.Count)*protocol.RecordSize, func(p []byte) error {
		outside, err := addRecords(x.adder, p, h.PageShift, x.resumed, x.ctx.Err)
		x.outside += outside
		return err
	})
	if err == nil && h.Flags&protocol.FlagLast != 0 {
		err = x.adder.Flush()
	}
	x.decode += time.Since(arrived)
	if over := x.ctx.Err(); over != nil && errors.Is(err, over) {
		// Whoever asked waits for the lock, to say the same.
		s.complete(x.overdue())
		return nil
	}
	if err != nil {
		return err
	}
	if h.Flags&protocol.FlagLast == 0 {
		return nil
	}
	if x.trailer, err = trailer(h, c); err != nil {
		return err
	}
	if x.trailer.Records != f.Items {
		return fmt.Errorf("trailer counts %d records, %d came: %w",
			x.trailer.Records, f.Items, protocol.ErrMalformed)
	}
	if t := x.trailer; !x.drops && (t.Dropped != 0 || t.DropUS != 0) { // [FBPP-DROP-3]
		return fmt.Errorf("trailer counts %d pages of dropped cache, which nobody asked for: %w",
			t.Dropped, protocol.ErrMalformed)
	}
	if bytes := uint64(x.trailer.Dropped) << x.pageShift; bytes > x.mostDrop { // [FBPP-DROP-4]
		return fmt.Errorf("trailer counts %d bytes of dropped cache, asked for were at most %d: %w",
			bytes, x.mostDrop, protocol.ErrMalformed)
	}
	if x.outside > 0 {
		s.lg.Info(
			"part of the report is about memory that is not shared with the device, and is left out",
			zap.Uint64("bytes", x.outside<<freeset.FrameShift))
	}
	s.complete(nil)
	return nil
}

// memory returns how many frames the guest has: those shared with the device, or
// the driver's own figure where that is larger, as not all memory need be shared.
func (s *Source) memory(free *freeset.Set) uint64 {
	said := uint64(0)
	if s.identity != nil {
		said = min(s.identity.RAMBytes, maxReported) >> freeset.FrameShift
	}
	return max(free.Capacity(), said)
}

func trailer(h protocol.Header, c content) (protocol.Trailer, error) {
	var p [protocol.TrailerSize]byte
	if _, err := c.ReadAt(p[:], int64(h.Size()-protocol.TrailerSize)); err != nil {
		return protocol.Trailer{}, fmt.Errorf("read trailer: %w", err)
	}
	return protocol.DecodeTrailer(p[:])
}
