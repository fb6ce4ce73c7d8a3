// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"errors"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/device/window"
)

// maxWait bounds the time of one exchange, whatever deadline the frontend sets.
const maxWait = time.Minute

// request is one open request of the frontend.
type request struct {
	ask    uint64 // the frontend's number
	begun  time.Time
	paused bool
	order  bool // an order is of use to the migration
	cancel context.CancelCauseFunc
	signal chan struct{} // receives when the frontend may have answered a peek
	// peeking says that a peek has no answer yet. The frontend may then write to
	// the window's ranges at any time, so the device must not.
	peeking bool
	peek    uint64 // number of the newest peek
}

// askLoop passes the frontend's signals to the state machine until the window is
// closed.
func (d *Device) askLoop(w *window.Window) {
	for {
		if err := w.WaitAsk(); err != nil {
			if !errors.Is(err, os.ErrClosed) {
				d.lg.Error("no more requests from this frontend", zap.Error(err))
			}
			return
		}
		d.mu.Lock()
		if d.window == w {
			d.told(w.Outcome())
			r := w.Request()
			d.observer.SetBoot(r.Boot)
			d.driver.SetBoot(r.Boot)
			d.observer.SetNote(r.Vmcoreinfo)
			d.asked(r)
			if d.open != nil {
				select {
				case d.open.signal <- struct{}{}:
				default:
				}
			}
		}
		d.mu.Unlock()
	}
}

// asked handles a signal of the frontend. d.mu is held, as in all that follows
// unless it says otherwise.
func (d *Device) asked(r window.Request) {
	if d.open != nil && r.Cancelled >= d.open.ask {
		d.finish(protocol.AnswerCancelled, "frontend gave up")
	}
	if r.Generation == d.lastAsk {
		return
	}
	d.lastAsk = r.Generation
	d.finish(protocol.AnswerCancelled, "overtaken by a newer request")
	if r.Cancelled >= r.Generation {
		return
	}
	d.begin(r)
}

// begin opens a request and starts to ask the sources.
func (d *Device) begin(r window.Request) {
	wait := min(time.Duration(r.DeadlineNS-monotonic()), maxWait)
	wait -= wait / 10 // for the answer's way back, on a busy host
	ctx, cancel := context.WithCancelCause(context.Background())
	x := &request{
		ask: r.Generation, begun: time.Now(), paused: r.Paused, order: r.NeedsOrder,
		cancel: cancel, signal: make(chan struct{}, 1),
	}
	d.open = x
	switch {
	case !d.enabled:
		d.finish(protocol.AnswerDisabled, "switched off by the operator")
	case wait <= 0:
		d.finish(protocol.AnswerDriverTimeout, "the request came after its own deadline")
	default:
		go d.ask(ctx, x, x.begun.Add(wait))
		d.watchers.wake()
	}
}

// ask asks the sources and answers the request. d.mu is not held.
func (d *Device) ask(open context.Context, x *request, deadline time.Time) {
	ctx, stop := context.WithDeadline(open, deadline)
	defer stop()
	d.freeMu.Lock() // waits for the source of an earlier request
	defer d.freeMu.Unlock()
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return // finish cancelled and answered the request meanwhile
	}
	d.mu.Lock()
	// The memory stays valid while freeMu is held.
	r := source.Request{Memory: d.memory, Paused: x.paused}
	if d.open == x && d.window.CanPeek() {
		r.Written = func(ctx context.Context, pages []freeset.Range) ([]byte, error) {
			return d.written(ctx, x, pages)
		}
	}
	if dropping := d.dropping(d.driver.Identity()); dropping != nil && dropping.Possible {
		r.Drop = d.drop
	} else if dropping != nil {
		d.lg.Warn("cold page cache is not dropped, and sent as any memory",
			zap.String("why", dropping.Why))
	}
	var order ordering
	cold := d.cache == CacheLast
	if d.open == x && d.window.CanOrder() && (x.order || cold) {
		order = d.ordering(x, r, cold)
	}
	d.mu.Unlock()

	name, f, failure := d.askInTurn(ctx, r, order)
	d.mu.Lock()
	defer d.mu.Unlock()
	if failure == nil && x.peeking {
		// What was found without the peek can be answered when the frontend has answered it.
		late, stop := context.WithTimeout(open, peekTime)
		defer stop()
		_, _ = d.awaitPeek(late, x)
	}
	if d.open != x {
		return
	}
	switch {
	case failure != nil:
		d.finish(failure.Status, failure.Why)
	case x.peeking:
		d.finish(protocol.AnswerInternal, "the source did not wait for the answer to its peek")
	default:
		d.answer(name, f)
	}
}

// askInTurn asks the sources in order until one answers, and returns its name and
// findings. A final failure ends the search. When no source answers, it returns an
// order alone, if there is one, or else the first source's failure with the reasons of
// the others appended. freeMu is held, d.mu is not.
func (d *Device) askInTurn(
	ctx context.Context, r source.Request, order ordering,
) (name string, f *source.Findings, failure *source.Failure) {
	var (
		first *source.Failure
		side  *aside
		fault bool // somebody should know of a failure
	)
	defer func() { side.end() }()
	for i, s := range d.sources {
		d.free.Reset()
		f = &source.Findings{Free: d.free}
		if _, knows := s.(source.Orderer); order.isSought() && knows {
			side.end()
			side, f.Order = nil, order.empty()
		} else if order.isSought() && side == nil {
			side = lookAside(ctx, d.orderer, r, order.empty())
		}
		err := askOne(ctx, s, r, f, i+1 < len(d.sources))
		if err == nil {
			d.conclude(ctx, &order, f, side)
			return s.Name(), f, nil
		}
		if !errors.As(err, &failure) {
			failure = source.Failf(protocol.AnswerInternal, "%v", err)
		}
		fault = fault || !isIgnorance(failure.Status)
		if failure.Final || ctx.Err() != nil {
			first = failure
			break
		}
		if first == nil {
			first = failure
		} else {
			first.Why += "; " + s.Name() + ": " + failure.Why
		}
	}
	if first == nil {
		first = source.Failf(protocol.AnswerDisabled, "no source may be asked (--source=none)")
	}
	if side.end(); !fault {
		if f := d.orderAlone(ctx, &order, first); f != nil {
			return orderByWritten, f, nil
		}
	}
	return "", nil, first
}

// reserve is the most time that a source must leave for the sources after it.
const reserve = 300 * time.Millisecond

// askOne asks one source. others says that more sources follow: then it gets an
// earlier deadline, so that they have some time left.
func askOne(
	ctx context.Context, s source.Source, r source.Request, f *source.Findings, others bool,
) error {
	if deadline, ok := ctx.Deadline(); ok && others {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/3, reserve)))
		defer cancel()
	}
	return s.Ask(ctx, r, f)
}

// written implements source.Request.Written by a peek. d.mu is not held.
func (d *Device) written(ctx context.Context, x *request, pages []freeset.Range) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x.peeking {
		return nil, errors.New("peek: the frontend has not answered the last one")
	}
	if d.open != x {
		return nil, context.Canceled
	}
	number, err := d.window.Peek(x.ask, pages)
	if err != nil {
		return nil, err
	}
	x.peek, x.peeking = number, true
	return d.awaitPeek(ctx, x)
}

// awaitPeek waits for the answer to a request's newest peek. It lets go of d.mu meanwhile.
func (d *Device) awaitPeek(ctx context.Context, x *request) ([]byte, error) {
	for d.open == x {
		answer, ok, err := d.window.Peeked(x.peek)
		if x.peeking = !ok; ok || err != nil {
			return answer, err
		}
		d.mu.Unlock()
		select {
		case <-x.signal:
		case <-ctx.Done():
		}
		d.mu.Lock()
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
	}
	return nil, context.Canceled
}

// answer answers the open request with a source's findings. freeMu is held, too.
func (d *Device) answer(name string, f *source.Findings) {
	x := d.open
	d.open = nil
	x.cancel(nil)
	a := window.Answer{Status: protocol.AnswerOK, Truncated: f.Truncated, Source: name}
	begun := time.Now()
	a.Written = d.window.WriteRanges(f.Free)
	if o := f.Order; o != nil {
		a.Hot, a.Cold = d.window.WriteOrder(a.Written, o.Hot, o.Cold)
	}
	a.Truncated = a.Truncated || a.Bytes>>freeset.FrameShift != f.Free.Frames()
	a.Phases = append(f.Phases, source.Phase{Name: source.PhaseWrite, Time: time.Since(begun)})
	a.Details = f.Details
	d.window.Publish(x.ask, a)
	d.record(x, a, f, "")
}

// finish ends the open request, if there is one, without findings: it answers the
// frontend with status and cancels the source.
func (d *Device) finish(status protocol.AnswerStatus, why string) {
	x := d.open
	if x == nil {
		return
	}
	d.open = nil
	x.cancel(errors.New(why))
	a := window.Answer{Status: status}
	if d.window != nil {
		d.window.Publish(x.ask, a)
	}
	d.record(x, a, &source.Findings{}, why)
}

// monotonic returns CLOCK_MONOTONIC in nanoseconds, the clock of deadlines.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // fails only for an unknown clock
	return ts.Nano()
}
