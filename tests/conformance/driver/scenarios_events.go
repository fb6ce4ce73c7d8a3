// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"math/rand/v2"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// These scenarios are about eventq, configuration and interrupts.

// rounds returns a number of events that is higher than the number of buffers. A
// driver that does not give buffers back has none left before the last event.
func (s *session) rounds() (n int) {
	s.locked(func() {
		s.collect()
		n = 2*len(s.buffers) + 8
	})
	return n
}

// phantom sends an event that asks for nothing. It has a generation of its own: an
// answer to it breaks the rule.
func (s *session) phantom(e protocol.Event, rule string, how use) error {
	e.Generation = rand.Uint64()
	s.locked(func() { s.judge.phantoms[e.Generation] = rule })
	return s.send(&e, how, nil)
}

// unknownEvents sends events that a device of a later version may send.
func unknownEvents(s *session) error {
	strange := []protocol.Event{
		{Type: 0}, {Type: 4}, {Type: 0xffff, Flags: 0xffff}, {Type: 4, Flags: protocol.EventHelloWanted},
		{Type: protocol.EventChanged},
		{Type: protocol.EventChanged, Flags: 0xffff &^ protocol.EventHelloWanted},
		{Type: 0x0100}, {Type: 0x0300, Flags: 1},
	}
	for i := range s.rounds() {
		if err := s.phantom(strange[i%len(strange)], ruleUnknown, use{}); err != nil {
			return err
		}
	}
	s.pause()
	return nil
}

func unknownInRequest(s *session) error {
	s.setPace(paceKeep, nil)
	r, err := s.begin(question{flags: 0xffff &^ protocol.EventDropCache})
	if err != nil {
		return err
	}
	for range 4 {
		for _, e := range []protocol.Event{{Type: 4}, {Type: protocol.EventChanged, Flags: 0x8000}} {
			if err := s.phantom(e, ruleUnknown, use{}); err != nil {
				return err
			}
		}
	}
	s.setPace(paceAtOnce, nil)
	return s.answered(r)
}

// noEvents uses buffers with length 0 that contain a request. The driver must not read
// it.
func noEvents(s *session) error {
	for range s.rounds() {
		ask := protocol.Event{Type: protocol.EventReportFree}
		if err := s.phantom(ask, ruleNoEvent, use{empty: true}); err != nil {
			return err
		}
	}
	s.pause()
	return nil
}

// newestFirst uses the newest buffer for each event, and keeps the oldest.
func newestFirst(s *session) error {
	if s.inOrder() {
		return notPossible("the driver negotiated IN_ORDER")
	}
	for range min(s.rounds(), 32) {
		if err := s.exchange(question{how: use{newest: true}}); err != nil {
			return err
		}
	}
	s.pause()
	return nil
}

func interrupts(s *session) error {
	for range 30 {
		s.locked(func() {
			s.interrupt(s.eventq)
			s.interrupt(s.reportq)
		})
		s.setConfig(func(*protocol.Config) {})
		select {
		case <-time.After(s.c.Quiet / 30):
		case <-s.ctx.Done():
		}
	}
	return nil
}

// switched switches the device off and on, and changes the budgets.
func switched(s *session) error {
	for range 2 {
		s.setConfig(func(c *protocol.Config) { c.Flags &^= protocol.ConfigEnabled })
		s.pause()
		s.setConfig(func(c *protocol.Config) { c.Flags |= protocol.ConfigEnabled; c.BudgetUS++ })
	}
	return nil
}

func switchedInRequest(s *session) error {
	s.setPace(paceKeep, nil)
	r, err := s.begin(question{})
	if err != nil {
		return err
	}
	s.setConfig(func(c *protocol.Config) { c.Flags &^= protocol.ConfigEnabled })
	if err := s.cancel(r.generation); err != nil {
		return err
	}
	s.setPace(paceAtOnce, nil)
	s.pause()
	s.setConfig(func(c *protocol.Config) { c.Flags |= protocol.ConfigEnabled })
	// A change of the budgets does not end a request that is open.
	if r, err = s.ask(question{}); err != nil {
		return err
	}
	s.setConfig(func(c *protocol.Config) { c.BudgetEntries++ })
	return s.answered(r)
}

func helloWanted(s *session) error {
	for range 3 {
		if err := s.wantHello(ruleWanted); err != nil {
			return err
		}
	}
	return nil
}

// helloWantedInRequest plays a device whose process was restarted: it asks for a HELLO
// and no longer knows the request that was open.
func helloWantedInRequest(s *session) error {
	for range 3 {
		if _, err := s.ask(question{}); err != nil {
			return err
		}
		if err := s.wantHello(ruleWanted); err != nil {
			return err
		}
	}
	return nil
}
