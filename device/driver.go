// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// Driver is what the guest's driver said in its HELLO. Its strings are safe to
// print, and nothing in it is to be trusted.
type Driver struct {
	Release   string            `json:"release"`
	Status    protocol.Status   `json:"-"`
	Reason    string            `json:"reason,omitempty"`
	Features  protocol.Features `json:"-"`
	MaxOrder  uint8             `json:"max_order"`
	PageShift uint8             `json:"page_shift"`
	RAMBytes  uint64            `json:"ram_bytes"`
}

// refuses says whether the driver must not be asked. A guest that checks the
// contents of its free pages never is, whatever its driver says [FBPP-HELLO-2].
func (r *Driver) refuses() bool {
	return r.Status != protocol.StatusOK || r.Features&protocol.FeaturePagePoison != 0
}

// refusal says why, for the operator.
func (r *Driver) refusal() string {
	switch {
	case r.Reason != "":
		return fmt.Sprintf("the driver refuses (%v): %s", r.Status, r.Reason)
	case r.Status == protocol.StatusOK:
		return "the guest checks the contents of free pages"
	}
	return fmt.Sprintf("the driver refuses (%v)", r.Status)
}

// hello handles a HELLO. d.mu is held.
func (d *Device) hello(h protocol.Header, c *vhostuser.Chain) error {
	var p [protocol.HelloSize]byte
	if h.Generation != 0 {
		return fmt.Errorf("hello with generation %d: %w", h.Generation, protocol.ErrMalformed)
	}
	if _, err := c.ReadAt(p[:], protocol.HeaderSize); err != nil {
		return fmt.Errorf("read hello: %w", err)
	}
	body, err := protocol.DecodeHello(p[:])
	if err != nil {
		return err
	}
	d.introduce(h, body, false)
	return nil
}

// Refuse takes the HELLO of a guest that cannot reach the device and says by
// another way why [FBPP-PORT-1]. One that does not refuse is an error.
func (d *Device) Refuse(h protocol.Header, body protocol.Hello) error {
	if h.Type != protocol.MessageHello || h.Generation != 0 || h.Status == protocol.StatusOK {
		return fmt.Errorf("refuse: %v: %w", h, protocol.ErrMalformed)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.introduce(h, body, true)
	return nil
}

// introduce makes who said HELLO the driver. d.mu is held.
func (d *Device) introduce(h protocol.Header, body protocol.Hello, outside bool) {
	d.driver = &Driver{
		Release:   body.Release,
		Status:    h.Status,
		Reason:    body.Reason,
		Features:  body.Features,
		MaxOrder:  body.MaxOrder,
		PageShift: h.PageShift,
		RAMBytes:  body.RAMBytes,
	}
	fields := []zap.Field{zap.String("release", body.Release), zap.Stringer("status", h.Status),
		zap.String("reason", body.Reason), zap.Stringer("features", body.Features)}
	if d.driver.refuses() {
		d.lg.Warn("driver refuses", append(fields, zap.Bool("outside", outside))...)
		d.finish(window.StatusRefused, d.driver.refusal())
	} else {
		d.lg.Info("driver said hello", fields...)
	}
	d.broadcast()
}

// wantHello asks for a HELLO once after the event queue started: the driver
// may have said it to another process, on this host or on an earlier one
// [FBPP-INIT-4]. One that is about to say it anyway says it twice. d.mu is held.
func (d *Device) wantHello() {
	if d.driver != nil || d.wanted {
		return
	}
	d.wanted = d.sendEvent(protocol.Event{Type: protocol.EventChanged, Flags: protocol.EventHelloWanted})
}

// sendEvent puts an event into eventq and interrupts the guest. It returns
// false when the driver has left no buffer. d.mu is held.
func (d *Device) sendEvent(e protocol.Event) bool {
	q := d.eventq
	if q == nil {
		return false
	}
	var p [protocol.EventSize]byte
	e.Encode(p[:])
	for range protocol.MaxQueueSize { // of short buffers a driver may have no end
		c, err := q.Pop()
		if c == nil || err != nil {
			if err != nil {
				d.eventqError(err)
			}
			return false
		}
		written := uint32(0)
		if c.WritableLen() >= protocol.EventSize {
			if _, err := c.WriteAt(p[:], 0); err != nil {
				d.eventqError(err)
				_ = q.Push(c, 0) // the queue's own error is the one that matters
				return false
			}
			written = protocol.EventSize
		}
		if err := q.Push(c, written); err != nil {
			d.eventqError(err)
			return false
		}
		if written == 0 {
			continue // too short for an event [FBPP-EV-2]
		}
		if err := q.Notify(); err != nil {
			d.eventqError(err)
			return false
		}
		return true
	}
	return false
}

// eventqError gives the event queue up until it is started anew.
func (d *Device) eventqError(err error) {
	d.eventq = nil
	d.lg.Warn("event queue is unusable until it is started anew", zap.Error(err))
}
