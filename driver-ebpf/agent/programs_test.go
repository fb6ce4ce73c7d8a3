// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

func TestProgramIsFetchedLoadedAndUsed(t *testing.T) {
	for name, change := range map[string]func(*host){
		"at once":                     func(*host) {},
		"with small buffers":          func(h *host) { h.room = 440 },
		"with parts that are lost":    func(h *host) { h.lose = 3 },
		"of the size of its parts":    func(h *host) { h.object = make([]byte, 2*part) },
		"of a single byte":            func(h *host) { h.object = h.object[:1] },
		"of more parts than are open": func(h *host) { h.object = make([]byte, 20*part+5) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 20000)
			change(h)
			var got []byte
			p := &fakePrograms{
				builtIn: newFakeWalker(fakeStep{state: walk.Done}),
				pushed:  newFakeWalker(fakeStep{records: 3, state: walk.Done}),
				load:    func(_ context.Context, o []byte) error { got = o; return nil },
			}
			h.on["active"] = func() { h.events <- ask(7) }
			h.play(p, testGuest)
			wantStates(t, h, "fetching", "loading", "active")
			if p.prepared != 1 {
				t.Errorf("%d loads were prepared", p.prepared)
			}
			if !bytes.Equal(got, h.object) {
				t.Errorf("%d bytes were loaded, %d were sent", len(got), len(h.object))
			}
			if last := h.fakeTransport.sent[len(h.sent)-1]; last.header.Count != 3 {
				t.Errorf("the walk is another one: %v", last.header)
			}
		})
	}
}

// What is not taken leaves the walk in place, and the host is told why.
func TestProgramThatIsNotTaken(t *testing.T) {
	broken := errors.New("no good")
	for name, c := range map[string]struct {
		p      fakePrograms
		change func(*host)
		want   []string
		reason string
	}{
		"by the policy": {p: fakePrograms{check: broken}, want: []string{"refused"}, reason: "no good"},
		"by the kernel": {p: fakePrograms{
			load: func(context.Context, []byte) error { return loggedError{broken} },
		}, want: []string{"fetching", "loading", "refused"}, reason: "no good"},
		"by the policy, which has changed": {p: fakePrograms{
			check: broken, after: 1,
			load: func(context.Context, []byte) error { t.Error("it was loaded"); return nil },
		}, want: []string{"fetching", "refused"}, reason: "no good"},
		"in its trial": {p: fakePrograms{use: broken},
			want: []string{"fetching", "loading", "refused"}, reason: "no good"},
		"because it does not come": {change: func(h *host) { h.lose = 1 << 20 },
			want: []string{"fetching", "refused"}, reason: errSilent.Error()},
		"because it has gone": {change: func(h *host) { h.gone = true },
			want: []string{"fetching", "withdrawn"}, reason: errGone.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 9000)
			if c.change != nil {
				c.change(h)
			}
			c.p.builtIn = newFakeWalker(fakeStep{records: 2, state: walk.Done})
			h.on[c.want[len(c.want)-1]] = func() { h.events <- ask(7) }
			h.play(&c.p, testGuest)
			wantStates(t, h, c.want...)
			if fetched := c.want[0] == "fetching"; fetched != (c.p.prepared > 0) {
				t.Errorf("%d loads were prepared", c.p.prepared)
			}
			last := h.reports[len(h.reports)-1]
			if last.Reason != c.reason || (name == "by the kernel") != (last.Log == "R1 invalid") {
				t.Errorf("the host was told %+v", last)
			}
			if last := h.fakeTransport.sent[len(h.sent)-1]; last.header.Count != 2 {
				t.Errorf("the walk is another one: %v", last.header)
			}
		})
	}
}

// An agent without a built-in program says so, and says HELLO again when it has one.
func TestAgentWithoutABuiltInProgram(t *testing.T) {
	h := newHost(t, 9000)
	guest := testGuest
	guest.Status = protocol.StatusUnsupported
	p := &fakePrograms{pushed: newFakeWalker(fakeStep{records: 1, state: walk.Done})}
	h.on["active"] = h.withdraw
	h.play(p, guest)
	wantStates(t, h, "fetching", "loading", "active", "withdrawn")
	var hellos []string
	for _, m := range h.fakeTransport.sent {
		if m.header.Type == protocol.MessageHello {
			hellos = append(hellos, m.header.Status.String())
			if m.hello.Features&protocol.FeaturePrograms == 0 {
				t.Error("a HELLO lacks the feature")
			}
		}
	}
	if diff := cmp.Diff([]string{"unsupported", "ok", "unsupported"}, hellos); diff != "" {
		t.Error(diff)
	}
}

func TestProgramIsReplacedAndWithdrawn(t *testing.T) {
	h := newHost(t, 9000)
	p := &fakePrograms{
		builtIn: newFakeWalker(fakeStep{state: walk.Done}),
		pushed:  newFakeWalker(fakeStep{state: walk.Done}),
	}
	h.on["active"] = func() {
		h.offer() // it is in use
		h.version = 2
		h.offer()
		h.on["active"] = func() { h.on["active"] = h.withdraw }
	}
	h.play(p, testGuest)
	wantStates(t, h, "fetching", "loading", "active", "active", "fetching", "loading",
		"withdrawn", "active", "withdrawn")
	if p.restored != 1 {
		t.Errorf("the built-in program was restored %d times", p.restored)
	}
}

// A program must not change under a walk: a WITHDRAW that comes then waits. Those of other
// programs are answered at once, however many there are.
func TestWithdrawInAWalkWaits(t *testing.T) {
	const others = 20
	h := newHost(t, 9000)
	script := slices.Repeat([]fakeStep{{records: 1, state: walk.More}}, others+2)
	pushed := newFakeWalker(append(script, fakeStep{state: walk.Done})...)
	p := &fakePrograms{builtIn: newFakeWalker(fakeStep{state: walk.Done}), pushed: pushed}
	h.on["active"] = func() { h.events <- ask(7) }
	pushed.onStep = func(n int) {
		if n == 1 {
			h.withdraw()
			for i := range others {
				h.send(protocol.ProgramEvent{
					Type: protocol.EventWithdraw, Digest: protocol.Digest{0xff, byte(i)},
				})
			}
		} else if p.restored != 0 {
			t.Error("the program was taken away in its walk")
		}
	}
	h.play(p, testGuest)
	want := append([]string{"fetching", "loading", "active"},
		slices.Repeat([]string{"withdrawn"}, others+1)...)
	wantStates(t, h, want...)
	if last := h.reports[len(h.reports)-1]; p.restored != 1 || last.Digest != h.digest() {
		t.Errorf("restored %d times, the last that was withdrawn is %v", p.restored, last.Digest)
	}
}

// What the host says of programs while the guest drops cache is not lost: a WITHDRAW is
// answered, and the end of a load does not end the dropping.
func TestProgramsAreHeardWhileCacheIsDropped(t *testing.T) {
	h := newHost(t, 9000)
	p := &fakePrograms{
		builtIn: newFakeWalker(fakeStep{state: walk.Done}),
		pushed:  newFakeWalker(fakeStep{state: walk.Done}),
	}
	h.drops = func(ctx context.Context, _ uint64, dropped func(uint64)) error {
		h.withdraw()
		h.Interrupt()
		time.Sleep(20 * dropPoll)
		dropped(1 << 20)
		return nil
	}
	h.on["active"] = func() { h.events <- askDrop(7, 16, forLong) }
	h.play(p, testGuest)
	wantStates(t, h, "fetching", "loading", "active", "withdrawn")
	for _, m := range h.sent {
		if m.header.Flags&protocol.FlagLast != 0 && m.trailer.Dropped != 256 {
			t.Errorf("the trailer is %+v, want the 256 pages that were dropped", m.trailer)
		}
	}
}

// The walk before is lost with a program that fails: the host is told of both.
func TestWalkIsLostInATrial(t *testing.T) {
	h := newHost(t, 9000)
	p := &fakePrograms{builtIn: newFakeWalker(fakeStep{}), pushed: newFakeWalker(fakeStep{})}
	h.on["active"] = func() {
		p.use, p.lost = errors.New("no good"), true
		h.version = 2
		h.offer()
		h.on["refused"] = func() { h.events <- ask(7) }
	}
	h.play(p, testGuest)
	wantStates(t, h, "fetching", "loading", "active", "fetching", "loading", "withdrawn", "refused")
	var statuses []string
	for _, m := range h.fakeTransport.sent {
		if m.header.Type != protocol.MessageProgram && m.header.Type != protocol.MessageGet {
			statuses = append(statuses, m.header.Type.String()+" "+m.header.Status.String())
		}
	}
	want := []string{"hello ok", "accepts ok", "hello failed", "started ok", "report failed"}
	if diff := cmp.Diff(want, statuses); diff != "" {
		t.Error(diff)
	}
}

// Offers of another session, and what is malformed, have no effect.
func TestEventsOfAnotherSessionAreIgnored(t *testing.T) {
	h := newHost(t, 9000)
	p := &fakePrograms{check: errors.New("no"), builtIn: newFakeWalker(fakeStep{})}
	h.on["refused"] = func() {
		h.nonce ^= 1
		h.offer()
		h.withdraw()
		h.program <- protocol.ProgramEvent{Type: protocol.EventOffer} // without a kind
		h.events <- protocol.Event{Type: protocol.EventOffer}
	}
	h.play(p, testGuest)
	wantStates(t, h, "refused")
}

// A device that is new to the agent learns what is in use, and a fetch goes on there.
func TestFetchGoesOnAtTheNextDevice(t *testing.T) {
	h := newHost(t, 20000)
	p := &fakePrograms{
		builtIn: newFakeWalker(fakeStep{}), pushed: newFakeWalker(fakeStep{}),
	}
	again := func() {
		h.events <- protocol.Event{Type: protocol.EventChanged, Flags: protocol.EventHelloWanted}
	}
	gets := 0
	before := h.onSend
	h.onSend = func(m sentMessage) {
		if m.header.Type == protocol.MessageGet {
			if gets++; gets == 3 {
				again()
				return
			} else if gets > 3 && gets <= partsAhead {
				return
			}
			if g, _ := protocol.DecodeGet(m.head[protocol.HeaderSize:]); gets > partsAhead && g.Offset == 0 {
				t.Error("the object is fetched from its beginning again")
			}
		}
		before(m)
	}
	h.on["active"] = again
	h.play(p, testGuest)
	wantStates(t, h, "fetching", "fetching", "loading", "active", "active", "active")
}

// A load that hangs is cancelled by a newer offer, and what it leaves is closed.
func TestLoadIsOvertaken(t *testing.T) {
	h := newHost(t, 9000)
	p := &fakePrograms{builtIn: newFakeWalker(fakeStep{}), pushed: newFakeWalker(fakeStep{})}
	p.load = func(ctx context.Context, object []byte) error {
		if len(object) == 9000 { // the first
			<-ctx.Done() // and it has loaded all the same
		}
		return nil
	}
	h.on["loading"] = func() {
		h.version, h.object = 2, h.object[:8000]
		h.offer()
	}
	h.play(p, testGuest)
	wantStates(t, h, "fetching", "loading", "refused", "fetching", "loading", "active")
	if atomic.LoadInt32(&p.closed) != 1 {
		t.Errorf("%d programs were closed", p.closed)
	}
}

// A device that does not know programs is told nothing of them, not even of one that is
// loaded meanwhile. The next device is.
func TestOldDeviceIsToldNothingOfPrograms(t *testing.T) {
	h := newHost(t, 9000)
	p := &fakePrograms{builtIn: newFakeWalker(fakeStep{}), pushed: newFakeWalker(fakeStep{})}
	again := func() {
		h.events <- protocol.Event{Type: protocol.EventChanged, Flags: protocol.EventHelloWanted}
	}
	h.on["loading"] = func() { h.old = true; again() }
	p.load = func(ctx context.Context, _ []byte) error {
		time.Sleep(time.Second) // until the old device has its HELLO
		return nil
	}
	hellos := 0
	before := h.onSend
	h.onSend = func(m sentMessage) {
		switch {
		case m.header.Type == protocol.MessageHello:
			if hellos++; hellos == 2 {
				time.AfterFunc(10*time.Second, func() { h.old = false; again() })
			}
		case h.old && m.header.Type.IsProgram() && hellos > 1:
			t.Errorf("the old device gets %v", m.header)
		}
		before(m)
	}
	h.play(p, testGuest)
	wantStates(t, h, "fetching", "loading", "active", "active")
	if hellos != 3 {
		t.Errorf("%d HELLOs", hellos)
	}
}

// A device may ask as soon as it has HELLO: by then it must have ACCEPTS, too.
func TestHelloAndAcceptsAreSentBeforeAnythingIsLogged(t *testing.T) {
	transport := newFakeTransport()
	core, logs := observer.New(zap.InfoLevel)
	a, err := New(testGuest, newFakeWalker(fakeStep{}), nil, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	a.SetPrograms(&fakePrograms{})
	transport.onSend = func(m sentMessage) {
		if logs.Len() > 0 {
			t.Errorf("%v comes after a line of the log", m.header)
		}
	}
	if err := a.sayHello(transport); err != nil {
		t.Fatal(err)
	}
	if logs.Len() == 0 || len(transport.sent) != 2 ||
		transport.sent[1].header.Type != protocol.MessageAccepts {
		t.Errorf("%d lines, %d messages", logs.Len(), len(transport.sent))
	}
}
