// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Why a step of a scenario could not be done.
var (
	// errStopped: the queues were stopped, and not because of the scenario.
	errStopped = errors.New("the queues were stopped")
	// errBroken: the driver broke a rule. The breach is already recorded.
	errBroken = errors.New("the driver broke a rule")
)

// notPossible is an error: it says why a scenario cannot be played here, and what it
// needs.
type notPossible string

func (e notPossible) Error() string { return string(e) }

// session is the device together with steps that wait for the driver. Scenarios are
// made of these steps.
type session struct {
	*device
	c     Config
	ctx   context.Context
	blame string // the rule that a request without an answer breaks
}

// question is a REPORT_FREE to ask. Its zero value is an ordinary one.
type question struct {
	generation uint64        // 0: a random one
	deadline   time.Duration // 0: one that is easy to meet
	noDeadline bool
	budget     *protocol.Config // nil: as configured
	flags      uint16
	drop       drop
	how        use
}

// ask sends REPORT_FREE. It waits until there is a buffer for it.
func (s *session) ask(q question) (*request, error) {
	e := protocol.Event{Type: protocol.EventReportFree, Flags: q.flags, Generation: q.generation}
	if e.Generation == 0 {
		e.Generation = rand.Uint64()
	}
	if q.deadline == 0 {
		q.deadline = s.c.Patience * 3 / 4
	}
	if !q.noDeadline {
		e.DeadlineMS = uint32(q.deadline.Milliseconds())
	}
	if q.drop != (drop{}) {
		e.Flags |= protocol.EventDropCache
		e.DropMiB, e.DropMS = q.drop.mib, q.drop.ms
	}
	r := &request{generation: e.Generation, drop: q.drop}
	err := s.send(&e, q.how, func() {
		budget := &s.config
		if q.budget != nil {
			budget = q.budget
		}
		e.BudgetUS, e.BudgetEntries = budget.BudgetUS, budget.BudgetEntries
		s.judge.requests[r.generation] = r
		r.breaches = s.judge.breaches
		s.collect()
		r.pinned = r.pinned[:0]
		for i, b := range s.buffers {
			if used := i == 0 && !q.how.newest || i == len(s.buffers)-1 && q.how.newest; !used {
				r.pinned = append(r.pinned, spans(b.chain.Writable())...)
			}
		}
	})
	return r, err
}

// send sends an event, and waits for a buffer to send it with. prepare, unless
// nil, is called before each attempt, with d.mu held.
func (s *session) send(e *protocol.Event, how use, prepare func()) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Patience)
	defer cancel()
	var err error
	waited := s.await(ctx, func() bool {
		if prepare != nil {
			prepare()
		}
		if err = s.put(*e, how); errors.Is(err, errNoBuffer) {
			return false
		}
		s.judge.note("device: %v%s", e, map[bool]string{true: ", in a buffer of length 0"}[how.empty])
		s.interrupt(s.eventq)
		return true
	})
	if waited != nil {
		return s.gaveUp("the driver left no event buffer for %v, to send %v", s.c.Patience, e)
	}
	return err
}

// gaveUp records that the driver broke the rule s.blame, because a wait for it has
// ended without success. It does not if the suite is being ended.
func (s *session) gaveUp(format string, args ...any) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if s.blame != noRule {
		s.locked(func() { s.judge.broke(s.blame, format, args...) })
	}
	return errBroken
}

// answered waits until the answer to r is complete.
func (s *session) answered(r *request) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Patience)
	defer cancel()
	stopped := false
	err := s.await(ctx, func() bool {
		stopped = s.eventq == nil || s.reportq == nil || r.lost
		return r.ended || stopped
	})
	var seen string
	ended, blamed := false, false
	s.locked(func() {
		ended, blamed = r.ended, s.judge.breaches > r.breaches
		seen = fmt.Sprintf("request %d was not answered in %v: STARTED came: %v, records: %d, no LAST",
			r.generation, s.c.Patience, r.started, r.records)
		if ended && r.status != protocol.StatusOK {
			s.judge.note("the driver cannot answer: %v", r.status)
		}
	})
	switch {
	case ended:
		return nil
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case blamed: // the answer is missing because of a breach that is recorded already
		return errBroken
	case err == nil:
		return errStopped
	}
	return s.gaveUp("%s", seen)
}

// exchange asks a question and waits for the answer.
func (s *session) exchange(q question) error {
	r, err := s.ask(q)
	if err != nil {
		return err
	}
	return s.answered(r)
}

// probe is an ordinary exchange.
func (s *session) probe() error { return s.exchange(question{}) }

// begin asks a question, and waits until the first message of the answer. It also
// returns when none comes within a short time.
func (s *session) begin(q question) (*request, error) {
	r, err := s.ask(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, 2*s.c.Quiet)
	defer cancel()
	_ = s.await(ctx, func() bool { return r.messages > 0 || s.reportq == nil })
	return r, nil
}

// wantHello asks for a HELLO and waits for it. A driver that sends none breaks rule.
func (s *session) wantHello(rule string) error {
	before := 0
	e := protocol.Event{Type: protocol.EventChanged, Flags: protocol.EventHelloWanted}
	if err := s.send(&e, use{}, func() { before = s.judge.hellos }); err != nil {
		return err
	}
	return s.helloAfter(before, rule)
}

// helloAfter waits for one more HELLO than there were before. A driver that sends
// none breaks rule.
func (s *session) helloAfter(before int, rule string) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Patience)
	defer cancel()
	stopped := false
	err := s.await(ctx, func() bool {
		stopped = s.reportq == nil
		return s.judge.hellos > before || stopped
	})
	switch {
	case err == nil && stopped:
		return errStopped
	case err == nil:
		if rule != noRule {
			s.locked(func() { s.judge.saw(rule) })
		}
		return nil
	}
	defer func(blame string) { s.blame = blame }(s.blame)
	s.blame = rule
	return s.gaveUp("no HELLO came in %v", s.c.Patience)
}

// refuses says whether the driver must not be asked. d.mu is held.
func (s *session) refuses() bool { return s.judge.driver == nil || s.judge.driver.refuses() }

// pause waits for a while, in which the driver need not do anything.
func (s *session) pause() {
	select {
	case <-time.After(s.c.Quiet):
	case <-s.ctx.Done():
	}
}

// running waits until both queues run.
func (s *session) running(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	return s.await(ctx, func() bool { return s.eventq != nil && s.reportq != nil })
}
