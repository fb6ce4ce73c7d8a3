// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// send sends an event to the driver of a serial port, or by eventq where p is nil.
func (s *Source) send(p *port, e protocol.Event) bool {
	if p != nil {
		return p.send(e)
	}
	return s.sendEvent(e)
}

// sendEvent puts an event into eventq and interrupts the guest. It returns false
// when there is no buffer of sufficient length, or the queue cannot be used. s.mu is
// held.
func (s *Source) sendEvent(e protocol.Event) bool {
	return s.sendInto(protocol.EventSize, false, func(int) []byte {
		var p [protocol.EventSize]byte
		e.Encode(p[:])
		return p[:]
	})
}

// sendInto puts what encode returns into the next buffer of at least least bytes. encode is
// told the buffer's length, and returns no more than that. With spare, another buffer has to
// be left.
func (s *Source) sendInto(least uint32, spare bool, encode func(room int) []byte) bool {
	q := s.eventq
	if q == nil || q.Abandoned() {
		return false
	}
	for range protocol.MaxQueueSize { // a driver may add short buffers without end
		c, err := q.Pop()
		if c == nil || err != nil {
			if err != nil {
				s.eventqError(err)
			}
			return false
		}
		written := uint32(0)
		fits := c.WritableLen() >= least
		if fits && spare && !s.another(q) {
			if err := q.Unpop(c); err != nil {
				s.eventqError(err)
			}
			return false
		}
		if fits {
			p := encode(int(c.WritableLen()))
			if _, err := c.WriteAt(p, 0); err != nil {
				s.eventqError(err)
				_ = q.Push(c, 0) // the error of WriteAt is already handled
				return false
			}
			written = uint32(len(p))
		}
		if err := q.Push(c, written); err != nil {
			s.eventqError(err)
			return false
		}
		if written == 0 {
			continue // too short for an event [FBPP-EV-2]
		}
		if err := q.Notify(); err != nil {
			s.eventqError(err)
			return false
		}
		return true
	}
	return false
}

// another says whether the driver has left one more buffer for an event.
func (s *Source) another(q *vhostuser.Queue) bool {
	c, err := q.Pop()
	if c == nil || err != nil {
		return false // the caller's next step meets the error, too
	}
	fits := c.WritableLen() >= protocol.EventSize
	return q.Unpop(c) == nil && fits
}

// eventqError stops using the event queue until the frontend starts it again.
func (s *Source) eventqError(err error) {
	s.eventq = nil
	s.lg.Warn("event queue is unusable until it is started anew", zap.Error(err))
}
