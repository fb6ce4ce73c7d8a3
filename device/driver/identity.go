// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

// Identity is what the guest's driver says about itself in its HELLO. Its strings
// are safe to print. The guest may have lied in every field.
type Identity struct {
	Release   string            `json:"release"`
	Status    protocol.Status   `json:"-"`
	Reason    string            `json:"reason,omitempty"`
	Features  protocol.Features `json:"-"`
	MaxOrder  uint8             `json:"max_order"`
	PageShift uint8             `json:"page_shift"`
	RAMBytes  uint64            `json:"ram_bytes"`
	Port      bool              `json:"port"` // it speaks by the serial port, not by the device
}

// Refuses says whether the driver must not be asked. That is also so when the
// driver is willing but the guest checks the contents of its free pages
// [FBPP-HELLO-2].
func (i *Identity) Refuses() bool {
	return i.Status != protocol.StatusOK || i.ContentMatters()
}

// DropsCache says whether the driver can drop cold cache.
func (i *Identity) DropsCache() bool { return i.Features&protocol.FeatureDropCache != 0 }

// ContentMatters says whether the guest relies on the contents of its free pages.
func (i *Identity) ContentMatters() bool { return contentMatters(i.Status, i.Features) }

// contentMatters is ContentMatters of a HELLO with that status and these features.
func contentMatters(s protocol.Status, f protocol.Features) bool {
	return s == protocol.StatusContentMatters || f&protocol.FeaturePagePoison != 0
}

// refusal returns the reason for the operator. It is final where the guest relies
// on the contents of free pages: then no source may report them.
func (i *Identity) refusal() *source.Failure {
	why := fmt.Sprintf("the driver refuses (%v)", i.Status)
	switch {
	case i.Status == protocol.StatusOK: // then its reason is about something else
		why = "the guest checks the contents of free pages"
	case i.Reason != "":
		why += ": " + i.Reason
	}
	return &source.Failure{Status: protocol.AnswerRefused, Why: why, Final: i.ContentMatters()}
}

// Identity returns what the driver said in its HELLO, or nil before one came. The
// result does not change later.
func (s *Source) Identity() *Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// Started says whether the event queue runs. A driver has then set up the device,
// and may not have said HELLO yet.
func (s *Source) Started() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eventq != nil
}

// hello handles a HELLO. s.mu is held, as in all that follows unless it says
// otherwise.
func (s *Source) hello(h protocol.Header, c content, from *port) error {
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
	if from != nil {
		wanted, err := s.portHello(h, &body)
		if !wanted || err != nil {
			return err
		}
	}
	s.introduce(h, body, from != nil)
	return nil
}

// introduce makes the sender of a HELLO the driver. port says that it came by the serial
// port.
func (s *Source) introduce(h protocol.Header, body protocol.Hello, port bool) {
	s.identity = &Identity{
		Release:   body.Release,
		Status:    h.Status,
		Reason:    body.Reason,
		Features:  body.Features,
		MaxOrder:  body.MaxOrder,
		PageShift: h.PageShift,
		RAMBytes:  body.RAMBytes,
		Port:      port,
	}
	if body.Features&protocol.FeaturePrograms == 0 {
		s.programs.end()
	}
	fields := []zap.Field{zap.String("release", body.Release), zap.Stringer("status", h.Status),
		zap.String("reason", body.Reason), zap.Stringer("features", body.Features),
		zap.Bool("port", port)}
	if s.identity.Refuses() {
		s.lg.Warn("driver refuses", fields...)
		s.complete(s.identity.refusal())
	} else {
		s.lg.Info("driver said hello", fields...)
	}
	s.changed()
}

// wantHello asks the driver for a HELLO, once for each start of the event queue
// [FBPP-INIT-4]. The driver may have said HELLO to an earlier process, here or on
// another host. A driver that is about to say HELLO anyway may say it twice.
func (s *Source) wantHello() {
	if s.identity != nil || s.wanted {
		return
	}
	s.wanted = s.sendEvent(protocol.Event{
		Type: protocol.EventChanged, Flags: protocol.EventHelloWanted,
	})
}
