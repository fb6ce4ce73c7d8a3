// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

var errUnplugged = errors.New("unplugged")

// serve runs the agent until the transport has no more events.
func serve(t *testing.T, a *Agent, transport *fakeTransport) []sentMessage {
	t.Helper()
	transport.fail = errUnplugged
	close(transport.events)
	if err := a.Run(t.Context(), transport); !errors.Is(err, errUnplugged) {
		t.Fatalf("error %v", err)
	}
	if transport.flushed != len(transport.sent) {
		t.Fatalf("the device was told of %d messages of %d", transport.flushed, len(transport.sent))
	}
	return transport.sent
}

func ask(generation uint64) protocol.Event {
	return protocol.Event{
		Type: protocol.EventReportFree, Generation: generation,
		BudgetUS: 700, BudgetEntries: 5000,
	}
}

// kinds returns a short name for each message.
func kinds(sent []sentMessage) (names []string) {
	for _, m := range sent {
		name := m.header.Type.String()
		if m.header.Flags&protocol.FlagLast != 0 {
			name += " last"
		}
		if m.header.Status != protocol.StatusOK {
			name += " " + m.header.Status.String()
		}
		names = append(names, name)
	}
	return names
}

func wantKinds(t *testing.T, sent []sentMessage, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, kinds(sent)); diff != "" {
		t.Fatal(diff)
	}
}

func TestHelloThenStartedThenReport(t *testing.T) {
	walker := newFakeWalker(fakeStep{records: 5, state: walk.Done})
	sent := serve(t, mustAgent(t, testGuest, walker), newFakeTransport(ask(7)))
	wantKinds(t, sent, "hello", "started", "report last")

	hello := sent[0]
	if diff := cmp.Diff(testGuest.Hello, hello.hello); diff != "" || hello.header.Generation != 0 {
		t.Errorf("hello of generation %d: %s", hello.header.Generation, diff)
	}
	report := sent[2]
	want := protocol.Header{
		Type: protocol.MessageReport, Flags: protocol.FlagLast,
		Count: 5, Generation: 7, PageShift: 12,
	}
	if diff := cmp.Diff(want, report.header); diff != "" {
		t.Error(diff)
	}
	records := []uint64{1 << 8, 2 << 8, 3 << 8, 4 << 8, 5 << 8}
	if diff := cmp.Diff(records, report.records); diff != "" {
		t.Error(diff)
	}
	trailer := protocol.Trailer{Records: 5, WalkUS: 1500, HoldMaxUS: 3600e6, Holds: 1}
	if diff := cmp.Diff(trailer, report.trailer); diff != "" {
		t.Error(diff)
	}
	budget := walk.Budget{Time: 700 * time.Microsecond, Entries: 5000}
	if diff := cmp.Diff([]walk.Budget{budget}, walker.budgets); diff != "" {
		t.Error(diff)
	}
}

func TestStartedIsOutBeforeTheWalk(t *testing.T) {
	transport := newFakeTransport(ask(7))
	walker := newFakeWalker(fakeStep{state: walk.Done})
	walker.onStep = func(int) {
		if got := kinds(transport.sent[:transport.flushed]); !slices.Contains(got, "started") {
			t.Errorf("at the walk the device knows only %v", got)
		}
	}
	serve(t, mustAgent(t, testGuest, walker), transport)
}

func TestEmptyReportIsSent(t *testing.T) {
	walker := newFakeWalker(fakeStep{state: walk.Done})
	sent := serve(t, mustAgent(t, testGuest, walker), newFakeTransport(ask(7)))
	wantKinds(t, sent, "hello", "started", "report last")
	if sent[2].header.Count != 0 || sent[2].trailer.Records != 0 {
		t.Fatalf("%+v", sent[2])
	}
}

func TestManyRecordsAreSplitAtTheLargestBody(t *testing.T) {
	transport := newFakeTransport(ask(7))
	transport.maxBody = 4*8 + 7 // room for 4 records and a part of one
	walker := newFakeWalker(fakeStep{records: 10, state: walk.Done})
	sent := serve(t, mustAgent(t, testGuest, walker), transport)
	wantKinds(t, sent, "hello", "started", "report", "report", "report last")
	var all []uint64
	for _, m := range sent[2:] {
		all = append(all, m.records...)
	}
	if len(all) != 10 || !slices.IsSorted(all) || sent[4].trailer.Records != 10 {
		t.Fatalf("records %v, trailer %+v", all, sent[4].trailer)
	}
}

func TestCutWalkIsResumedAndSaysSo(t *testing.T) {
	walker := newFakeWalker(
		fakeStep{records: 2, state: walk.More},
		fakeStep{records: 2, state: walk.More},
		fakeStep{records: 1, state: walk.Done})
	sent := serve(t, mustAgent(t, testGuest, walker), newFakeTransport(ask(7)))
	wantKinds(t, sent, "hello", "started", "report last")
	if sent[2].header.Flags != protocol.FlagLast|protocol.FlagResumed || len(sent[2].records) != 5 {
		t.Fatalf("%v with %d records", sent[2].header, len(sent[2].records))
	}
}

func TestFullBufferIsSentAndDrainedBeforeItIsFilledAgain(t *testing.T) {
	walker := newFakeWalker(
		fakeStep{records: 3, state: walk.Full},
		fakeStep{records: 3, state: walk.Full},
		fakeStep{records: 1, state: walk.Done})
	transport := newFakeTransport(ask(7))
	sent := serve(t, mustAgent(t, testGuest, walker), transport)
	wantKinds(t, sent, "hello", "started", "report", "report", "report last")
	if walker.released != 2 || transport.drained != 3 { // drained also before the first event
		t.Fatalf("released %d times, drained %d times", walker.released, transport.drained)
	}
	if sent[4].trailer.Records != 7 || len(sent[4].records) != 1 {
		t.Fatalf("%+v", sent[4])
	}
	if sent[4].header.Flags&protocol.FlagResumed == 0 {
		t.Fatal("a walk that let go of its locks does not say so")
	}
}

func TestWalkIsCutInTimeForItsDeadline(t *testing.T) {
	event := ask(7)
	event.DeadlineMS = 100
	walker := newFakeWalker(fakeStep{records: 1, state: walk.More})
	walker.leftOut = 12
	a := mustAgent(t, testGuest, walker)
	clock := time.Unix(0, 0)
	a.now = func() time.Time { return clock }
	walker.onStep = func(int) { clock = clock.Add(20 * time.Millisecond) }
	sent := serve(t, a, newFakeTransport(event))
	wantKinds(t, sent, "hello", "started", "report last")
	last := sent[2]
	const flags = protocol.FlagLast | protocol.FlagTruncated | protocol.FlagResumed
	if last.header.Flags != flags || last.trailer.LeftOut != 12 {
		t.Fatalf("%v, %+v", last.header, last.trailer)
	}
	if got := clock.Sub(time.Unix(0, 0)); got != 80*time.Millisecond {
		t.Fatalf("the walk went on for %v of 100 ms", got)
	}
}

func TestWalkThatGoesRoundInCirclesIsCut(t *testing.T) {
	guest := testGuest
	guest.Hello.RAMBytes = 10 << guest.PageShift
	for name, c := range map[string]struct {
		pages uint64 // when the request comes
		err   error
		want  uint64 // records, in steps of 4
	}{
		"after as many records as the guest has pages": {10, nil, 12},
		"later in a guest that has grown":              {20, nil, 20},
		"no sooner in a guest that has shrunk":         {5, nil, 12},
		"by the size at the start, if need be":         {0, errors.New("no sysinfo"), 12},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFakeWalker(fakeStep{records: 4, state: walk.More}) // the walk never ends
			a := mustAgent(t, guest, w)
			a.ram = func() (uint64, error) { return c.pages << guest.PageShift, c.err }
			sent := serve(t, a, newFakeTransport(ask(7)))
			last := sent[len(sent)-1]
			if last.header.Flags&protocol.FlagLast == 0 || last.trailer.Records != c.want {
				t.Fatalf("the last message is %v with %d records, want LAST after %d",
					last.header, last.trailer.Records, c.want)
			}
		})
	}
}

func TestCancelEndsTheWalkBetweenTwoHolds(t *testing.T) {
	for name, c := range map[string]struct {
		event protocol.Event
		want  []string
	}{
		"cancelled": {
			protocol.Event{Type: protocol.EventCancel, Generation: 7},
			[]string{"hello", "started"},
		},
		"another request was cancelled": {
			protocol.Event{Type: protocol.EventCancel, Generation: 6},
			[]string{"hello", "started", "report last"},
		},
		"asked anew": {
			ask(8),
			[]string{"hello", "started", "started", "report last"},
		},
		"the device lost its state": {
			protocol.Event{Type: protocol.EventChanged, Flags: protocol.EventHelloWanted},
			[]string{"hello", "started", "hello"},
		},
		"the configuration changed": {
			protocol.Event{Type: protocol.EventChanged},
			[]string{"hello", "started", "report last"},
		},
		"an event from the future": {
			protocol.Event{Type: 99, Flags: 99, Generation: 7},
			[]string{"hello", "started", "report last"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			transport := newFakeTransport(ask(7), c.event)
			first, second := fakeStep{records: 1, state: walk.More}, fakeStep{state: walk.Done}
			walker := newFakeWalker(first, second)
			sent := serve(t, mustAgent(t, testGuest, walker), transport)
			wantKinds(t, sent, c.want...)
			last := sent[len(sent)-1].header
			if c.event.Type == protocol.EventReportFree && last.Generation != 8 {
				t.Fatalf("the answer is to %d", last.Generation)
			}
		})
	}
}

func TestEventsBetweenRequests(t *testing.T) {
	walker := newFakeWalker(fakeStep{records: 1, state: walk.Done})
	sent := serve(t, mustAgent(t, testGuest, walker), newFakeTransport(
		protocol.Event{Type: 42},
		protocol.Event{Type: protocol.EventCancel, Generation: 5},
		protocol.Event{Type: protocol.EventChanged},
		protocol.Event{Type: protocol.EventChanged, Flags: protocol.EventHelloWanted},
	))
	wantKinds(t, sent, "hello", "hello")
	if walker.begun != 0 {
		t.Fatal("walked unasked")
	}
}

func TestGuestThatMustNotReport(t *testing.T) {
	guest := testGuest
	guest.Status, guest.Hello.Reason = protocol.StatusContentMatters, "page_poison is on"
	walker := newFakeWalker(fakeStep{records: 1, state: walk.Done})
	sent := serve(t, mustAgent(t, guest, walker), newFakeTransport(ask(7)))
	wantKinds(t, sent, "hello content-matters", "started", "report last content-matters")
	if sent[0].hello.Reason != guest.Hello.Reason {
		t.Errorf("reason %q", sent[0].hello.Reason)
	}
	if walker.begun != 0 || sent[2].header.Count != 0 || sent[2].header.Generation != 7 {
		t.Errorf("walked %d times, %v", walker.begun, sent[2].header)
	}
	if _, err := New(testGuest, nil, nil, nil); err == nil {
		t.Error("an agent without a walker and without a reason")
	}
}

func TestWalkThatFailsIsReportedAndTheNextOneWorks(t *testing.T) {
	walker := newFakeWalker(fakeStep{records: 3, err: errors.New("the lists look odd")})
	transport := newFakeTransport(ask(7), ask(8))
	transport.onSend = func(m sentMessage) {
		if m.header.Status == protocol.StatusFailed {
			walker.script = []fakeStep{{records: 2, state: walk.Done}}
		}
	}
	sent := serve(t, mustAgent(t, testGuest, walker), transport)
	// The second request is there already. It does not end the answer to the first:
	// that walk fails before the agent looks for events.
	wantKinds(t, sent, "hello", "started", "report last failed", "started", "report last")
	if sent[2].header.Count != 0 || sent[4].header.Count != 2 {
		t.Fatalf("%v, %v", sent[2].header, sent[4].header)
	}
}

func TestDeviceThatStopsReading(t *testing.T) {
	t.Run("in the middle of a report, which is given up", func(t *testing.T) {
		walker := newFakeWalker(fakeStep{records: 3, state: walk.Full})
		transport := newFakeTransport(ask(7))
		walker.onStep = func(int) { transport.stuck = true }
		sent := serve(t, mustAgent(t, testGuest, walker), transport)
		wantKinds(t, sent, "hello", "started", "report")
	})
	t.Run("before a report, which has the device opened anew", func(t *testing.T) {
		transport := newFakeTransport(ask(7))
		transport.stuck = true
		a := mustAgent(t, testGuest, newFakeWalker(fakeStep{state: walk.Done}))
		if err := a.Run(t.Context(), transport); err == nil {
			t.Fatal("no error")
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	transport := newFakeTransport()
	transport.onSend = func(sentMessage) { cancel() }
	if err := mustAgent(t, testGuest, newFakeWalker(fakeStep{})).Run(ctx, transport); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, transport.sent, "hello")
}

// Without a deadline, a walk that finds nothing more ends all the same, and so does one whose
// agent is told to end.
func TestWalkWithoutADeadlineEnds(t *testing.T) {
	for name, c := range map[string]struct {
		stop int // the step in which the agent is told to end; 0: none
		last string
	}{
		"it goes nowhere": {0, "report last"}, "the agent ends": {3, "report last failed"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			transport, walker := newFakeTransport(ask(7)), newFakeWalker(fakeStep{state: walk.More})
			walker.onStep = func(n int) {
				if n == c.stop {
					cancel()
				}
				if n > maxIdle+1 {
					panic("the walk does not end")
				}
			}
			transport.onSend = func(m sentMessage) {
				if m.header.Flags&protocol.FlagLast != 0 {
					cancel()
				}
			}
			if err := mustAgent(t, testGuest, walker).Run(ctx, transport); err != nil {
				t.Fatal(err)
			}
			wantKinds(t, transport.sent, "hello", "started", c.last)
		})
	}
}
