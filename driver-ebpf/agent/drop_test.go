// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// dropFunc is a dropper.
type dropFunc func(ctx context.Context, most uint64, dropped func(uint64)) error

func (f dropFunc) Drop(ctx context.Context, most uint64, dropped func(uint64)) error {
	return f(ctx, most, dropped)
}

// askDrop asks to drop cache first.
func askDrop(generation uint64, mib, ms uint32) protocol.Event {
	e := ask(generation)
	e.Flags, e.DropMiB, e.DropMS = protocol.EventDropCache, mib, ms
	return e
}

// serveInTurn runs the agent. Each event comes when the one before has been answered.
func serveInTurn(
	t *testing.T, a *Agent, tr *fakeTransport, events ...protocol.Event,
) []sentMessage {
	t.Helper()
	tr.fail = errUnplugged
	next := func() {
		if len(events) == 0 {
			close(tr.events)
			return
		}
		tr.events <- events[0]
		events = events[1:]
	}
	tr.onSend = func(m sentMessage) {
		if m.header.Flags&protocol.FlagLast != 0 {
			next()
		}
	}
	next()
	if err := a.Run(t.Context(), tr); !errors.Is(err, errUnplugged) {
		t.Fatalf("error %v", err)
	}
	return tr.sent
}

const forLong = 1 << 30 // milliseconds

func dropAgent(t *testing.T, walker walk.Walker, f dropFunc) *Agent {
	t.Helper()
	a := mustAgent(t, testGuest, walker)
	a.dropper = f
	return a
}

func TestCacheIsDroppedBeforeTheWalk(t *testing.T) {
	walker := newFakeWalker(fakeStep{records: 1, state: walk.Done})
	transport := newFakeTransport()
	calls := 0
	a := dropAgent(t, walker, func(_ context.Context, most uint64, dropped func(uint64)) error {
		calls++
		if most != 3<<20 || walker.begun != 0 || transport.flushed != 2 {
			t.Errorf("%d bytes after %d walks and %d messages", most, walker.begun, transport.flushed)
		}
		dropped(1 << 20)
		dropped(4096)
		return errors.New("one group failed") // what was dropped counts all the same
	})
	sent := serveInTurn(t, a, transport, askDrop(7, 3, forLong), ask(8), askDrop(9, 0, forLong))
	wantKinds(t, sent, "hello", "started", "report last", "started", "report last",
		"started", "report last")
	if calls != 1 {
		t.Errorf("cache was dropped %d times", calls)
	}
	for i, want := range []uint32{257, 0, 0} {
		if got := sent[2*i+2].trailer; got.Dropped != want || got.DropUS != 0 && want == 0 {
			t.Errorf("request %d: %+v", i, got)
		}
	}
}

// A reclaim that hangs does not hold the report. It is not asked for more meanwhile.
func TestReclaimThatHangs(t *testing.T) {
	release := make(chan struct{})
	ended := make(chan struct{})
	var calls atomic.Int32
	walker := newFakeWalker(fakeStep{records: 1, state: walk.Done})
	a := dropAgent(t, walker, func(_ context.Context, _ uint64, dropped func(uint64)) error {
		calls.Add(1)
		dropped(8192)
		<-release
		close(ended)
		return nil
	})
	core, logs := observer.New(zap.WarnLevel)
	a.lg = zap.New(core)
	sent := serveInTurn(t, a, newFakeTransport(), askDrop(7, 1, 1000), askDrop(8, 1, 20))
	wantKinds(t, sent, "hello", "started", "report last", "started", "report last")
	if sent[2].trailer.Dropped != 2 || sent[2].trailer.DropUS < 1_000_000 ||
		sent[4].trailer.Dropped != 0 || calls.Load() != 1 {
		t.Errorf("%+v, then %+v, in %d calls", sent[2].trailer, sent[4].trailer, calls.Load())
	}
	if logs.FilterMessageSnippet("still works").Len() != 1 {
		t.Errorf("log: %v", logs.All())
	}
	close(release)
	<-ended
}

// Dropping takes a part of the time only, whatever the device allows.
func TestMostOfTheTimeIsForTheWalk(t *testing.T) {
	walker := newFakeWalker(fakeStep{records: 1, state: walk.Done})
	begun := time.Now()
	until := make(chan time.Time, 1)
	a := dropAgent(t, walker, func(ctx context.Context, _ uint64, _ func(uint64)) error {
		end, _ := ctx.Deadline() // the zero time if there is none
		until <- end
		return nil
	})
	const deadline = time.Hour // no test takes so long
	e := askDrop(7, 1, forLong)
	e.DeadlineMS = uint32(deadline.Milliseconds())
	sent := serveInTurn(t, a, newFakeTransport(), e)
	wantKinds(t, sent, "hello", "started", "report last")
	now := time.Now()
	if end := <-until; end.Before(begun) || end.After(now.Add(deadline/dropShare)) {
		t.Errorf("dropping may last %v, and the whole request %v", end.Sub(begun), deadline)
	}
	if walker.begun != 1 {
		t.Errorf("%d walks", walker.begun)
	}
}

// A guest with very many groups may have no time left to drop anything. It says so.
func TestTimeThatEndsBeforeAnyCacheIsDropped(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	walker := newFakeWalker(fakeStep{records: 1, state: walk.Done})
	a := dropAgent(t, walker, func(context.Context, uint64, func(uint64)) error {
		<-release
		return nil
	})
	core, logs := observer.New(zap.WarnLevel)
	a.lg = zap.New(core)
	serveInTurn(t, a, newFakeTransport(), askDrop(7, 1, 20))
	if logs.FilterMessageSnippet("before the first step").Len() != 1 {
		t.Errorf("log: %v", logs.All())
	}
}

func TestRequestThatIsVoidEndsTheDropping(t *testing.T) {
	for name, next := range map[string]protocol.Event{
		"a cancel":        {Type: protocol.EventCancel, Generation: 7},
		"another request": ask(8),
	} {
		t.Run(name, func(t *testing.T) {
			transport := newFakeTransport(askDrop(7, 1, forLong))
			ended := make(chan struct{})
			walker := newFakeWalker(fakeStep{state: walk.Done})
			a := dropAgent(t, walker, func(ctx context.Context, _ uint64, _ func(uint64)) error {
				defer close(ended)
				<-ctx.Done()
				return nil
			})
			transport.onSend = func(m sentMessage) {
				if m.header.Type == protocol.MessageStarted && m.header.Generation == 7 {
					transport.events <- next
				}
			}
			go func() {
				<-ended
				transport.fail = errUnplugged
				close(transport.events)
			}()
			if err := a.Run(t.Context(), transport); !errors.Is(err, errUnplugged) {
				t.Fatal(err)
			}
			for _, m := range transport.sent {
				if m.header.Type == protocol.MessageReport && m.header.Generation == 7 {
					t.Errorf("the void request is answered: %v", m.header)
				}
			}
		})
	}
}

func TestAgentThatEndsWhileItDrops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	walker := newFakeWalker(fakeStep{state: walk.Done})
	a := dropAgent(t, walker, func(dropping context.Context, _ uint64, _ func(uint64)) error {
		cancel()
		<-dropping.Done()
		return nil
	})
	transport := newFakeTransport(askDrop(7, 1, forLong))
	if err := a.Run(ctx, transport); err != nil {
		t.Fatal(err)
	}
	<-a.dropping.done
}
