// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// drainLimit is how long the device may take to read a message if the event had no
// deadline.
const drainLimit = 10 * time.Second

// maxIdle is after how many steps in a row without a new record a walk is cut. It ends a walk
// that goes nowhere, where the event had no deadline.
const maxIdle = 1000

// request is the state of the answer to one REPORT_FREE.
type request struct {
	a     *Agent
	t     Transport
	event protocol.Event
	end   time.Time // when the walk is cut, so that the answer arrives in time; zero: never
	sent  uint64    // records

	dropped  uint64 // cache that was dropped before the walk, in bytes
	dropTime time.Duration
}

// report answers REPORT_FREE. If an event voids the request meanwhile, the answer ends and
// report returns that event as next.
func (a *Agent) report(ctx context.Context, t Transport, event protocol.Event) (
	next protocol.Event, ok bool, err error,
) {
	r := &request{a: a, t: t, event: event}
	start := a.now()
	if event.DeadlineMS != 0 {
		// The last quarter of the time is left for the device to read the report.
		r.end = start.Add(time.Duration(event.DeadlineMS) * time.Millisecond * 3 / 4)
	}
	// The walk reuses the buffer of the last report, so the device must have read
	// that report. If it has not by now, something is wrong, and the device is
	// opened anew. STARTED is sent after this, so that Drain does not wait for it.
	if err := r.drain(); err != nil {
		err = fmt.Errorf("wait for the device to read an earlier report: %w", err)
		return protocol.Event{}, false, err
	}
	if err := r.send(protocol.Header{Type: protocol.MessageStarted}, 0, nil); err != nil {
		return protocol.Event{}, false, err
	}
	t.Flush()
	started := a.now()
	if err := a.endInquiries(t, errMigration); err != nil {
		return protocol.Event{}, false, err
	}
	if a.walker == nil {
		return protocol.Event{}, false, r.refuse(a.guest.Status)
	}
	if next, ok, err = r.dropCache(ctx); ok || err != nil {
		return next, ok, err
	}
	begun := a.now()
	most := a.maxRecords()
	a.walker.Begin()
	budget := walk.Budget{
		Time:    time.Duration(event.BudgetUS) * time.Microsecond,
		Entries: event.BudgetEntries,
	}
	var records uint64
	for idle := 0; ; idle++ {
		state, err := a.walker.Step(budget)
		if err != nil {
			a.lg.Error("walk", zap.Error(err))
			return protocol.Event{}, false, r.refuse(protocol.StatusFailed)
		}
		// Look for another event now, as no lock is held between two steps.
		if next, ok, err = r.look(ctx, 0); ok || err != nil {
			return next, ok, err
		}
		if ctx.Err() != nil { // the agent is told to end
			return protocol.Event{}, false, r.refuse(protocol.StatusFailed)
		}
		if n := a.walker.Stats().Records; n != records {
			records, idle = n, 0
		}
		late := !r.end.IsZero() && a.now().After(r.end) || idle >= maxIdle
		if state == walk.Done || late || records >= most {
			break
		}
		if state == walk.Full {
			if err := r.sendRecords(false, false); err != nil {
				return protocol.Event{}, false, err
			}
			if err := r.drain(); err != nil {
				return r.late(err)
			}
			a.walker.Release()
		}
	}
	walked := a.now()
	stats := a.walker.Stats()
	if err := r.sendRecords(true, stats.LeftOut != 0); err != nil {
		return protocol.Event{}, false, err
	}
	a.lg.Info("reported",
		zap.Uint64("generation", event.Generation), zap.Uint64("records", stats.Records),
		zap.Duration("took", a.now().Sub(start)), zap.Duration("started", started.Sub(start)),
		zap.Duration("drain", stats.Drain), zap.Duration("walked", walked.Sub(begun)),
		zap.Duration("walk", stats.WalkTime), zap.Duration("hold-max", stats.HoldMax),
		zap.Uint32("holds", stats.Holds), zap.Uint64("left-out", stats.LeftOut),
		zap.Uint64("dropped", r.dropped), zap.Duration("drop", r.dropTime))
	return protocol.Event{}, false, nil
}

// look looks for another event while the request is answered, for at most limit. It handles
// one about programs. One that voids the request is returned as next, with ok.
func (r *request) look(ctx context.Context, limit time.Duration) (
	next protocol.Event, ok bool, err error,
) {
	next, ok, err = r.t.Receive(limit)
	switch {
	case errors.Is(err, ErrInterrupted): // by the end of ctx, or of a load, which can wait
		return protocol.Event{}, false, nil
	case err != nil:
		return protocol.Event{}, false, fmt.Errorf("receive event: %w", err)
	case ok && next.Type.IsProgram():
		return protocol.Event{}, false, r.a.program(ctx, r.t, true)
	case ok && r.voidedBy(next):
		r.a.lg.Info("request is void",
			zap.Uint64("generation", r.event.Generation), zap.Stringer("by", next))
		return next, true, nil
	}
	return protocol.Event{}, false, nil
}

// voidedBy tells whether an event ends this request.
func (r *request) voidedBy(event protocol.Event) bool {
	switch event.Type {
	case protocol.EventReportFree: // [FBPP-EV-4]
		return true
	case protocol.EventCancel:
		return event.Generation == r.event.Generation
	case protocol.EventChanged: // the device may have lost its state, and the request
		return event.Flags&protocol.EventHelloWanted != 0
	}
	return false
}

// refuse ends the request without an answer [FBPP-REP-6].
func (r *request) refuse(status protocol.Status) error {
	var trailer protocol.Trailer
	last := protocol.Header{Type: protocol.MessageReport, Flags: protocol.FlagLast, Status: status}
	err := r.send(last, 0, &trailer)
	r.t.Flush()
	return err
}

// sendRecords sends all records in the walker's buffer. If last is set, the last message
// has the trailer.
func (r *request) sendRecords(last, truncated bool) error {
	stats := r.a.walker.Stats()
	records := len(r.a.walker.Records()) / protocol.RecordSize
	most := r.t.MaxBody() / protocol.RecordSize
	for from := 0; ; {
		n := min(records-from, most)
		header := protocol.Header{Type: protocol.MessageReport, Count: uint32(n)}
		if stats.Resumed {
			header.Flags |= protocol.FlagResumed
		}
		from += n
		r.sent += uint64(n)
		if from < records || !last {
			if err := r.send(header, from-n, nil); err != nil {
				return err
			}
			if from == records {
				r.t.Flush()
				return nil
			}
			continue
		}
		header.Flags |= protocol.FlagLast
		if truncated {
			header.Flags |= protocol.FlagTruncated
		}
		err := r.send(header, from-n, &protocol.Trailer{
			Records:   r.sent,
			WalkUS:    saturate(uint64(stats.WalkTime.Microseconds())),
			HoldMaxUS: saturate(uint64(stats.HoldMax.Microseconds())),
			Holds:     stats.Holds,
			LeftOut:   saturate(stats.LeftOut),
			Dropped:   saturate(r.dropped >> r.a.guest.PageShift),
			DropUS:    saturate(uint64(r.dropTime.Microseconds())),
		})
		r.t.Flush()
		return err
	}
}

// send sends one message of this request, with header.Count records from index from on.
func (r *request) send(header protocol.Header, from int, trailer *protocol.Trailer) error {
	var head [protocol.HeaderSize]byte
	header.Generation, header.PageShift = r.event.Generation, r.a.guest.PageShift
	header.Encode(head[:])
	m := Message{Head: head[:]}
	if header.Count != 0 {
		records := r.a.walker.Records()[from*protocol.RecordSize:]
		m.Body = records[:header.Count*protocol.RecordSize]
	}
	if trailer != nil {
		var tail [protocol.TrailerSize]byte
		trailer.Encode(tail[:])
		m.Tail = tail[:]
	}
	if err := r.t.Send(m); err != nil {
		return fmt.Errorf("send %v: %w", header.Type, err)
	}
	return nil
}

// drain waits until the device has read all that was sent.
func (r *request) drain() error {
	limit := drainLimit
	if !r.end.IsZero() {
		limit = max(r.end.Sub(r.a.now()), 0)
	}
	return r.t.Drain(limit)
}

// late gives the request up without an error if the device reads too slowly: the device
// closes it at its deadline. Any other error ends the transport.
func (r *request) late(err error) (protocol.Event, bool, error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return protocol.Event{}, false, fmt.Errorf("wait for the device to read messages: %w", err)
	}
	r.a.lg.Warn("the device reads too slowly", zap.Uint64("generation", r.event.Generation))
	return protocol.Event{}, false, nil
}

func saturate(v uint64) uint32 { return uint32(min(v, math.MaxUint32)) }
