// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// inquiryLimit bounds an inquiry, without the interval of a sample. A guest of 1 TiB takes less,
// also where eBPF is slow.
const inquiryLimit = 2 * time.Minute

// Why an inquiry has no result.
var (
	errInquiryLate = fmt.Errorf("the answer took longer than %v", inquiryLimit)
	errNewDevice   = errors.New("another session has begun")
	errNotInUse    = errors.New("no such program with this digest is in use")
	errGivenUp     = errors.New("the host has asked something else")
	errStopped     = errors.New("the program was taken out of use")
	errMigration   = errors.New("a migration has begun, which goes first")
)

// inquiry is a question of the device that a program of the host answers by looking at all pages.
// One is under way at a time. The program runs in a goroutine of its own: a migration does not
// wait for it, nor for a program that does not end.
type inquiry struct {
	running bool
	kind    protocol.ProgramKind
	cancel  context.CancelCauseFunc // of the last one
	answers chan answer             // has room for one

	// next is the question that is begun after the end of this one. A device that asks it has
	// given this one up.
	next *protocol.ProgramEvent
}

// answer is a message that answers an inquiry, or a part of one.
type answer struct {
	nonce uint64
	last  bool
	of    protocol.MessageType
	size  int
	body  interface{ Encode(p []byte) }
}

func censusAnswer(r protocol.CensusReport) answer {
	return answer{
		last: true, of: protocol.MessageCensus, size: protocol.CensusReportSize, body: &r,
	}
}

func sampleAnswer(r protocol.SampleReport) answer {
	return answer{
		last: !r.IsPart(), of: protocol.MessageSampled,
		size: protocol.SampleReportSize, body: &r,
	}
}

// stop ends what is under way: it is answered with why.
func (q *inquiry) stop(why error) {
	if q.cancel != nil {
		q.cancel(why)
	}
}

// stopKind is stop, where the program that is at work is of that kind.
func (q *inquiry) stopKind(kind protocol.ProgramKind, why error) {
	if q.kind == kind {
		q.stop(why)
	}
}

// abandon ends what is under way, and forgets what waits: the device that has asked has gone.
func (q *inquiry) abandon() {
	q.stop(errNewDevice)
	q.next = nil
}

// question is what an event asks for.
type question struct {
	kind protocol.ProgramKind
	// run finds the last answer, and passes those before it on.
	run func(ctx context.Context, pass func(answer) error) (answer, error)
	// fail makes the answer where nothing was found.
	fail func(why error) answer
}

func (a *Agent) questionOf(e *protocol.ProgramEvent) question {
	if e.Type == protocol.EventSample {
		return a.sampleFor(e)
	}
	return a.countFor(e)
}

// inquire begins what an event asks for. While a request is answered, nothing is begun.
func (a *Agent) inquire(
	ctx context.Context, t Transport, e *protocol.ProgramEvent, walking bool,
) error {
	q := a.questionOf(e)
	active := a.active[q.kind]
	switch {
	case active == nil || active.Digest != e.Digest:
		return a.sayAnswer(t, q.fail(errNotInUse))
	case walking:
		return a.sayAnswer(t, q.fail(errMigration))
	case a.inquiry.running:
		return a.inquireNext(t, e)
	}
	running, cancel := context.WithCancelCause(ctx)
	a.inquiry.running, a.inquiry.kind, a.inquiry.cancel = true, q.kind, cancel
	nonce := a.nonce
	// pass gives an answer to the agent, which may be serving another device meanwhile.
	pass := func(ctx context.Context, x answer) error {
		x.nonce = nonce
		select {
		case a.inquiry.answers <- x:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		a.wake.call()
		return nil
	}
	go func() {
		limited, done := context.WithTimeoutCause(running, e.Interval+inquiryLimit, errInquiryLate)
		defer done()
		x, err := q.run(limited, func(part answer) error { return pass(limited, part) })
		if err != nil {
			x = q.fail(err)
		}
		_ = pass(ctx, x) // fails when the agent ends
	}()
	return nil
}

// inquireNext ends what is under way, and begins what an event asks for after that.
func (a *Agent) inquireNext(t Transport, e *protocol.ProgramEvent) error {
	before := a.inquiry.next
	next := *e
	a.inquiry.next = &next
	a.inquiry.cancel(errGivenUp)
	if before == nil {
		return nil
	}
	return a.sayAnswer(t, a.questionOf(before).fail(errGivenUp))
}

// endInquiries ends what is under way, and does not begin what waits.
func (a *Agent) endInquiries(t Transport, why error) error {
	a.inquiry.stop(why)
	next := a.inquiry.next
	if a.inquiry.next = nil; next == nil {
		return nil
	}
	return a.sayAnswer(t, a.questionOf(next).fail(why))
}

func (a *Agent) countFor(e *protocol.ProgramEvent) question {
	digest, number := e.Digest, e.Number
	run := func(ctx context.Context, _ func(answer) error) (answer, error) {
		r, err := a.programs.Count(ctx)
		r.Digest, r.Number = digest, number
		return censusAnswer(r), err
	}
	return question{protocol.KindCensus, run, func(why error) answer {
		return censusAnswer(protocol.CensusReport{
			Digest: digest, Number: number, Failed: true, Reason: why.Error(),
		})
	}}
}

func (a *Agent) sampleFor(e *protocol.ProgramEvent) question {
	digest, number, interval := e.Digest, e.Number, e.Interval
	begun := a.now()
	run := func(ctx context.Context, pass func(answer) error) (answer, error) {
		part := func(state protocol.SampleState, first uint64, pages []byte) error {
			r := protocol.SampleReport{Digest: digest, Number: number, State: state, First: first}
			if copy(r.Pages[:], pages); r.Pages == [len(r.Pages)]byte{} {
				return nil
			}
			return pass(sampleAnswer(r))
		}
		r, err := a.programs.Sample(ctx, interval, func(first uint64, hot, free []byte) error {
			if err := part(protocol.SamplePart, first, hot); err != nil {
				return err
			}
			return part(protocol.SampleFree, first, free)
		})
		r.Digest, r.Number = digest, number
		r.TookUS = saturate(uint64(a.now().Sub(begun).Microseconds()))
		return sampleAnswer(r), err
	}
	return question{protocol.KindSampler, run, func(why error) answer {
		return sampleAnswer(protocol.SampleReport{
			Digest: digest, Number: number, State: protocol.SampleFailed, Reason: why.Error(),
		})
	}}
}

// answered sends the next answer, if there is one, to the device that has asked.
func (a *Agent) answered(ctx context.Context, t Transport) error {
	select {
	case x := <-a.inquiry.answers:
		if x.nonce == a.nonce {
			if err := a.sayAnswer(t, x); err != nil {
				return err
			}
		}
		if !x.last {
			return nil
		}
		a.inquiry.running = false
		a.inquiry.cancel(nil)
		next := a.inquiry.next
		if a.inquiry.next = nil; next == nil {
			return nil
		}
		return a.inquire(ctx, t, next, false)
	default: // also if the agent takes no programs: the channel is nil
		return nil
	}
}

func (a *Agent) sayAnswer(t Transport, x answer) error {
	err := a.sendProgram(t, x.of, x.size, x.body.Encode)
	t.Flush()
	return err
}
