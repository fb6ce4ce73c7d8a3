// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// scenario is something that the device does. After it the driver has to answer
// an ordinary request.
type scenario struct {
	name  string
	blame string   // the rule that a driver breaks if it does not answer
	asks  bool     // it asks for reports
	waits bool     // it waits until an operator or a script has acted on the guest
	only  []string // rules that have an occasion in no other scenario
	play  func(*session) error
}

func scenarios() []scenario {
	return []scenario{
		{name: "an ordinary request", blame: ruleLast, asks: true, play: ordinary},
		{name: "requests in quick succession", blame: ruleLast, asks: true, play: quickSuccession},
		{name: "generations that are alike", blame: ruleLast, asks: true, play: alike},
		{name: "budgets, tiny and huge", blame: ruleUsable, asks: true, play: budgets},
		{name: "deadlines, tight, unknown and far", blame: ruleUsable, asks: true, play: deadlines},
		{name: "overtaken at once", blame: ruleUsable, asks: true, play: overtaken},
		{name: "overtaken while the driver walks", blame: ruleUsable, asks: true, play: overtakenInWalk},
		{name: "overtaken while messages are kept", blame: ruleUsable, asks: true,
			play: overtakenLate(paceKeep)},
		{name: "overtaken while messages are in the ring", blame: ruleUsable, asks: true,
			play: overtakenLate(paceIgnore)},
		{name: "cancelled", blame: ruleUsable, asks: true, play: cancelled},
		{name: "another request cancelled", blame: ruleCancel, asks: true, only: []string{ruleCancel},
			play: otherCancelled},
		{name: "messages used late", blame: ruleUsable, asks: true, only: []string{ruleStable},
			play: usedLate},
		{name: "messages used out of order", blame: ruleUsable, asks: true, play: usedOutOfOrder},
		{name: "messages left in the ring", blame: ruleUsable, asks: true, only: []string{ruleLocks},
			play: leftInRing},
		{name: "unknown events", blame: ruleUnknown, only: []string{ruleUnknown}, play: unknownEvents},
		{name: "unknown events in a request", blame: ruleUnknown, asks: true, play: unknownInRequest},
		{name: "buffers without an event", blame: ruleNoEvent, only: []string{ruleNoEvent},
			play: noEvents},
		{name: "event buffers used out of order", blame: ruleUsable, asks: true, play: newestFirst},
		{name: "interrupts for nothing", blame: ruleUsable, play: interrupts},
		{name: "switched off and on", blame: ruleUsable, play: switched},
		{name: "switched off in a request", blame: ruleUsable, asks: true, play: switchedInRequest},
		{name: "HELLO wanted", blame: ruleUsable, only: []string{ruleWanted}, play: helloWanted},
		{name: "HELLO wanted in a request", blame: ruleUsable, asks: true, play: helloWantedInRequest},
		{name: "a device without programs", blame: ruleUsable, play: withoutPrograms,
			only: []string{ruleKnown}},
		{name: "programs", blame: ruleUsable, play: offerPrograms,
			only: []string{ruleRoom, ruleAccepts, ruleSession, ruleOffer, ruleDigest}},
		{name: "a census", blame: ruleUsable, only: []string{ruleCount},
			play: askFor(protocol.KindCensus, protocol.EventCount, ruleCount)},
		{name: "a sample", blame: ruleUsable, only: []string{ruleSample},
			play: askFor(protocol.KindSampler, protocol.EventSample, ruleSample)},
		{name: "cache to be dropped", blame: ruleDropTime, asks: true,
			only: []string{ruleDropMost, ruleDropTime}, play: dropsCache},
		{name: "the guest paused", blame: ruleUsable, waits: true, play: paused},
		{name: "the driver restarted", blame: ruleUsable, waits: true, only: []string{ruleAgain},
			play: restarted},
		{name: "the connection lost", blame: ruleUsable, play: reconnected},
	}
}

// ordinary asks a driver that has had time to refill eventq.
func ordinary(s *session) error {
	s.pause()
	s.locked(func() {
		s.collect()
		s.judge.saw(ruleSpare)
		if n := len(s.buffers); n < 2 && s.eventq != nil {
			s.judge.advise(ruleSpare, "a driver that has nothing to do has left %d event buffers", n)
		}
	})
	return s.probe()
}

func quickSuccession(s *session) error {
	for range 20 {
		if err := s.probe(); err != nil {
			return err
		}
	}
	return nil
}

// alike asks with generations of which some differ in one bit only, and some are
// lower than the one before. A driver must neither order generations nor keep only
// a part of them.
func alike(s *session) error {
	g := rand.Uint64() | 1<<62 | 1<<31
	for _, generation := range []uint64{g, g ^ 1<<63, g ^ 1<<32, g ^ 1, g - 2, math.MaxUint64 - g} {
		if err := s.exchange(question{generation: generation}); err != nil {
			return err
		}
	}
	return nil
}

func budgets(s *session) error {
	const most = math.MaxUint32
	for _, b := range []*protocol.Config{
		longest(), {}, {BudgetUS: most, BudgetEntries: most},
		{BudgetUS: 1, BudgetEntries: most}, {BudgetUS: most, BudgetEntries: 1},
	} {
		deadline := min(s.c.Patience/4, 2*time.Second)
		if err := s.untilDeadline(question{budget: b, deadline: deadline}); err != nil {
			return err
		}
	}
	return nil
}

// untilDeadline asks a question, and waits for the answer until the deadline at most.
// With a small budget the answer may take longer, and the driver may end it at the
// deadline.
func (s *session) untilDeadline(q question) error {
	r, err := s.ask(q)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, q.deadline)
	defer cancel()
	ended, stopped := false, false
	_ = s.await(ctx, func() bool {
		ended, stopped = r.ended, s.eventq == nil || s.reportq == nil || r.lost
		return ended || stopped
	})
	switch {
	case ended:
		return nil
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case stopped:
		return errStopped
	}
	return s.cancel(r.generation)
}

// deadlines asks with a deadline that is too short, with none, and with a far one.
func deadlines(s *session) error {
	r, err := s.ask(question{deadline: time.Millisecond})
	if err != nil {
		return err
	}
	s.pause()
	if err := s.cancel(r.generation); err != nil { // as the device does at a deadline
		return err
	}
	for _, q := range []question{{noDeadline: true}, {deadline: math.MaxUint32 * time.Millisecond}} {
		if err := s.exchange(q); err != nil {
			return err
		}
	}
	return nil
}

func overtaken(s *session) error {
	for range 8 {
		if _, err := s.ask(question{}); err != nil {
			return err
		}
	}
	return nil
}

// longest returns the smallest budget. With it a walk takes the longest: usually until
// the deadline.
func longest() *protocol.Config { return &protocol.Config{BudgetUS: 1, BudgetEntries: 1} }

// overtakenInWalk asks again or cancels while the driver answers.
func overtakenInWalk(s *session) error {
	for i := range 6 {
		r, err := s.begin(question{budget: longest()})
		if err != nil {
			return err
		}
		if i%3 == 2 {
			if err := s.cancel(r.generation); err != nil {
				return err
			}
		}
	}
	return nil
}

// overtakenLate asks again while the device has not used the messages that answer the
// first request.
func overtakenLate(p pace) func(*session) error {
	return func(s *session) error {
		s.setPace(p, nil)
		if _, err := s.begin(question{}); err != nil {
			return err
		}
		second, err := s.ask(question{})
		if err != nil {
			return err
		}
		s.pause()
		s.setPace(paceAtOnce, nil)
		return s.answered(second)
	}
}

func (s *session) cancel(generation uint64) error {
	return s.send(&protocol.Event{Type: protocol.EventCancel, Generation: generation}, use{}, nil)
}

func cancelled(s *session) error {
	for range 4 {
		r, err := s.ask(question{})
		if err != nil {
			return err
		}
		for range 2 { // the second one cancels nothing
			if err := s.cancel(r.generation); err != nil {
				return err
			}
		}
	}
	return nil
}

// otherCancelled cancels requests that are not open.
func otherCancelled(s *session) error {
	before, err := s.ask(question{})
	if err != nil {
		return err
	}
	if err := s.answered(before); err != nil {
		return err
	}
	for _, ask := range []func(question) (*request, error){s.begin, s.ask} {
		s.setPace(paceKeep, nil)
		r, err := ask(question{})
		if err != nil {
			return err
		}
		for _, other := range []uint64{
			before.generation, r.generation ^ 1<<63, r.generation ^ 1<<32, r.generation - 1, 0,
		} {
			if err := s.cancel(other); err != nil {
				return err
			}
		}
		s.setPace(paceAtOnce, nil)
		if err := s.answered(r); err != nil {
			return err
		}
	}
	return nil
}

// kept asks, and keeps the messages of the answer for a while before it uses them.
// arrange, unless nil, changes their order.
func (s *session) kept(arrange func([]*message)) error {
	s.setPace(paceKeep, nil)
	r, err := s.ask(question{})
	if err != nil {
		return err
	}
	for end := time.Now().Add(s.c.Patience / 2); ; {
		s.pause()
		s.setPace(paceKeep, arrange)
		done := false
		s.locked(func() { done = r.ended || s.reportq == nil })
		if done || time.Now().After(end) || s.ctx.Err() != nil {
			break
		}
	}
	s.setPace(paceAtOnce, arrange)
	return s.answered(r)
}

func usedLate(s *session) error { return s.kept(nil) }

func usedOutOfOrder(s *session) error {
	if s.inOrder() {
		return notPossible("the driver negotiated IN_ORDER")
	}
	return s.kept(slices.Reverse[[]*message])
}

func (s *session) inOrder() (yes bool) {
	s.locked(func() { yes = s.features.Has(wire.FeatureInOrder) })
	return yes
}
