// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

// request is one question to the driver: from the event to the last report.
type request struct {
	ctx        context.Context // of Ask
	generation uint64
	port       *port // by which the driver was asked; nil: by the queues
	findings   *source.Findings
	done       chan error // receives the result of Ask, once

	inject  time.Duration // before the event: offering programs
	raised  time.Time     // the event was put into eventq
	started time.Time     // STARTED arrived; zero before it

	pageShift uint8          // of the first report; 0 before it
	drops     bool           // cold cache was to be dropped
	mostDrop  uint64         // of it, in bytes
	adder     *freeset.Adder // to findings.Free
	resumed   bool           // blocks may repeat
	outside   uint64
	trailer   protocol.Trailer
	decode    time.Duration
}

// begin opens a request and raises the migration interrupt. s.mu is held, as in
// all that follows.
func (s *Source) begin(
	ctx context.Context, r source.Request, f *source.Findings,
) (*request, error) {
	switch {
	case ctx.Err() != nil: // while programs were offered
		return nil, (&request{ctx: ctx}).overdue()
	case s.identity != nil && s.identity.Refuses(): // also by Refuse, without queues
		return nil, s.identity.refusal()
	case s.identity == nil || !s.identity.Port && s.eventq == nil:
		return nil, source.Failf(protocol.AnswerNoDriver, "no driver said hello")
	case r.Paused:
		return nil, source.Failf(protocol.AnswerNoDriver, "the guest is paused, and its driver with it")
	}
	x := &request{
		ctx: ctx, generation: newGeneration(), port: s.link(), findings: f,
		adder: freeset.NewAdder(f.Free),
		done:  make(chan error, 1), raised: time.Now(),
	}
	e := protocol.Event{
		Type:          protocol.EventReportFree,
		Generation:    x.generation,
		BudgetUS:      s.config.BudgetUS,
		BudgetEntries: s.config.BudgetEntries,
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		e.BudgetUS, e.BudgetEntries = s.budget(left)
		// 0 would mean that the deadline is unknown.
		e.DeadlineMS = uint32(max(left.Milliseconds(), 1))
	}
	if r.Drop != (source.Drop{}) && s.identity.DropsCache() { // [FBPP-DROP-1]
		x.drops = true
		e.Flags |= protocol.EventDropCache
		e.DropMiB, e.DropMS = limits(r.Drop)
		x.mostDrop = uint64(e.DropMiB) << 20
	}
	if !s.send(x.port, e) {
		return nil, source.Failf(protocol.AnswerDriverTimeout, "the driver left no buffer for the event")
	}
	s.open = x
	return x, nil
}

// complete ends the open request, if there is one. A nil failure means that the
// report is complete. After any other failure than a refusal the driver may still
// be working, so it gets a CANCEL.
func (s *Source) complete(failure *source.Failure) {
	x := s.open
	if x == nil {
		return
	}
	s.open = nil
	if failure == nil {
		x.conclude(time.Now())
		x.done <- nil
		return
	}
	if failure.Status != protocol.AnswerRefused {
		s.send(x.port, protocol.Event{Type: protocol.EventCancel, Generation: x.generation})
	}
	x.done <- failure
}

// completeAt is complete for a request that was asked by that way: a port, or nil for the queues.
func (s *Source) completeAt(way *port, failure *source.Failure) {
	if s.open != nil && s.open.port == way {
		s.complete(failure)
	}
}

// overdue returns the failure of a request whose context ended.
func (x *request) overdue() *source.Failure {
	switch cause := context.Cause(x.ctx); {
	case errors.Is(cause, errSilent):
		return source.Failf(protocol.AnswerDriverTimeout, "%v", errSilent)
	case !errors.Is(x.ctx.Err(), context.DeadlineExceeded):
		return source.Failf(protocol.AnswerCancelled, "%v", cause)
	case x.started.IsZero():
		return source.Failf(protocol.AnswerDriverTimeout, "%v", errSilent)
	}
	return source.Failf(protocol.AnswerDriverTimeout, "the driver did not finish its report in time")
}

// conclude splits the time from the interrupt to now into phases that add up to
// it. On a busy host STARTED may be read after the walk. The time of the walk is
// then not counted as wakeup.
func (x *request) conclude(now time.Time) {
	rest := max(now.Sub(x.raised)-x.decode, 0)
	walk := min(time.Duration(x.trailer.WalkUS)*time.Microsecond, rest)
	drop := min(time.Duration(x.trailer.DropUS)*time.Microsecond, rest-walk)
	wakeup := time.Duration(0)
	if !x.started.IsZero() { // a driver SHOULD send STARTED, it need not
		wakeup = min(x.started.Sub(x.raised), rest-walk-drop)
	}
	x.findings.Phases = []source.Phase{{Name: source.PhaseWakeup, Time: wakeup}}
	if x.drops {
		x.findings.Phases = append(x.findings.Phases,
			source.Phase{Name: source.PhaseDrop, Time: drop})
		x.findings.Dropped = uint64(x.trailer.Dropped) << x.pageShift
	}
	x.findings.Phases = append(x.findings.Phases,
		source.Phase{Name: source.PhaseWalk, Time: walk},
		source.Phase{Name: source.PhaseTransfer, Time: rest - walk - drop - wakeup},
		source.Phase{Name: source.PhaseDecode, Time: x.decode},
	)
	if x.inject > 0 {
		x.findings.Phases = slices.Insert(x.findings.Phases, 0,
			source.Phase{Name: source.PhaseInject, Time: x.inject})
	}
	x.findings.Details = []source.Detail{
		{Name: "hold-max-us", Value: uint64(x.trailer.HoldMaxUS)},
		{Name: "holds", Value: uint64(x.trailer.Holds)},
	}
	if x.outside > 0 {
		x.findings.Details = append(x.findings.Details,
			source.Detail{Name: "outside-frames", Value: x.outside})
	}
}

// newGeneration returns a random number, so that no earlier request to this guest
// has had it, here or on another host [FBPP-EV-3].
func newGeneration() uint64 {
	var p [8]byte
	_, _ = rand.Read(p[:]) // documented to never fail
	return max(binary.LittleEndian.Uint64(p[:]), 1)
}

// limits returns the bounds of an event, neither of which is 0 [FBPP-DROP-2].
func limits(d source.Drop) (mib, ms uint32) {
	return uint32(min(max(d.Bytes>>20, 1), 1<<32-1)),
		uint32(min(max(d.Time.Milliseconds(), 1), 1<<32-1))
}

func microseconds(t time.Duration) uint32 {
	return uint32(min(max(t.Microseconds(), 0), 1<<32-1))
}
