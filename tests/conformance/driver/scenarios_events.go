// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"math/rand/v2"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// These scenarios are about eventq, configuration and interrupts.

// rounds returns how many events make sure that every buffer was used, with
// which a driver would run dry that does not give them back.
func (s *session) rounds() (n int) {
	s.locked(func() {
		s.collect()
		n = 2*len(s.buffers) + 8
	})
	return n
}

// phantom is an event that asks for nothing, with a generation of its own.
func (s *session) phantom(e protocol.Event, rule string, how use) error {
	e.Generation = rand.Uint64()
	s.locked(func() { s.judge.phantoms[e.Generation] = rule })
	return s.send(&e, how, nil)
}

// unknownEvents sends what a later device may send.
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
	r, err := s.begin(question{flags: 0xffff})
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

// noEvents uses buffers with length 0, in which there is something that looks
// like a request.
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

// newestFirst keeps the first buffers for long, and uses the others.
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
	// A change that concerns no one does not end a request.
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

// helloWantedInRequest plays a device that has lost its memory. It knows no
// request any more.
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
