// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/binary"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// fakeTransport plays a device that reads every message at once.
type fakeTransport struct {
	events   chan protocol.Event
	woken    chan struct{}
	fail     error // what waiting in Receive returns when events is closed
	sent     []sentMessage
	flushed  int // how many messages the device was notified of
	maxBody  int
	drained  int // how often the transport was drained
	stuck    bool
	onSend   func(sentMessage)
	old      bool                       // the device knows no programs
	program  chan protocol.ProgramEvent // for each event about a program, in their order
	closings int
}

type sentMessage struct {
	header  protocol.Header
	head    []byte
	hello   protocol.Hello
	records []uint64
	trailer protocol.Trailer
}

func newFakeTransport(events ...protocol.Event) *fakeTransport {
	t := &fakeTransport{
		program: make(chan protocol.ProgramEvent, 64),
		events:  make(chan protocol.Event, 64), woken: make(chan struct{}, 1), maxBody: 1 << 20,
	}
	for _, event := range events {
		t.events <- event
	}
	return t
}

func (t *fakeTransport) Receive(limit time.Duration) (protocol.Event, bool, error) {
	if limit == 0 {
		select {
		case event, ok := <-t.events:
			return event, ok, nil
		default:
			return protocol.Event{}, false, nil
		}
	}
	select {
	case event, ok := <-t.events:
		if !ok {
			return event, false, t.fail
		}
		return event, true, nil
	case <-t.woken:
		return protocol.Event{}, false, ErrInterrupted
	case <-expires(limit):
		return protocol.Event{}, false, nil
	}
}

func (t *fakeTransport) Introduce(g Guest) Guest { return g }

func (t *fakeTransport) KnowsPrograms() bool { return !t.old }

func (t *fakeTransport) Program() (protocol.ProgramEvent, error) {
	e := <-t.program
	p := make([]byte, e.Size())
	e.Encode(p)
	return protocol.DecodeProgramEvent(p)
}

// expires returns a channel that receives after limit, or never.
func expires(limit time.Duration) <-chan time.Time {
	if limit == Forever {
		return nil
	}
	return time.After(limit)
}

func (t *fakeTransport) Send(m Message) error {
	header, err := protocol.DecodeHeader(m.Head)
	if err != nil {
		return err
	}
	if got := len(m.Head) + len(m.Body) + len(m.Tail); uint64(got) != header.Size() {
		return protocol.ErrMalformed
	}
	message := sentMessage{header: header, head: slices.Clone(m.Head)}
	if header.Type == protocol.MessageHello {
		if message.hello, err = protocol.DecodeHello(m.Head[protocol.HeaderSize:]); err != nil {
			return err
		}
	}
	for body := m.Body; len(body) != 0; body = body[8:] {
		message.records = append(message.records, binary.LittleEndian.Uint64(body))
	}
	if m.Tail != nil {
		if message.trailer, err = protocol.DecodeTrailer(m.Tail); err != nil {
			return err
		}
	}
	t.sent = append(t.sent, message)
	if t.onSend != nil {
		t.onSend(message)
	}
	return nil
}

func (t *fakeTransport) Flush() { t.flushed = len(t.sent) }

func (t *fakeTransport) Drain(time.Duration) error {
	t.Flush()
	t.drained++
	if t.stuck {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (t *fakeTransport) MaxBody() int { return t.maxBody }

func (t *fakeTransport) Interrupt() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

func (t *fakeTransport) Close() error { t.closings++; return nil }

// fakeWalker is a walker with a script: each step of a walk does what one entry says.
type fakeWalker struct {
	script   []fakeStep
	step     int
	begun    int
	memory   []byte
	count    int
	total    uint64
	leftOut  uint64
	budgets  []walk.Budget
	released int
	onStep   func(n int)
}

type fakeStep struct {
	records int
	state   walk.State
	err     error
}

func newFakeWalker(script ...fakeStep) *fakeWalker {
	return &fakeWalker{script: script, memory: make([]byte, 1<<16)}
}

func (w *fakeWalker) Begin() { w.begun++; w.step, w.count, w.total = 0, 0, 0 }

func (w *fakeWalker) Step(b walk.Budget) (walk.State, error) {
	step := w.script[min(w.step, len(w.script)-1)]
	w.step++
	w.budgets = append(w.budgets, b)
	for range step.records {
		w.total++
		binary.LittleEndian.PutUint64(w.memory[w.count*8:], w.total<<8)
		w.count++
	}
	if w.onStep != nil {
		w.onStep(w.step)
	}
	return step.state, step.err
}

func (w *fakeWalker) Records() []byte { return w.memory[:w.count*8] }
func (w *fakeWalker) Release()        { w.released++; w.count = 0 }

func (w *fakeWalker) Stats() walk.Stats {
	return walk.Stats{
		Records: w.total, LeftOut: w.leftOut, Resumed: w.step > 1,
		WalkTime: 1500 * time.Microsecond, HoldMax: time.Hour, Holds: uint32(w.step),
	}
}

var testGuest = Guest{
	Hello: protocol.Hello{
		Features: protocol.FeatureInitOnAlloc, MaxOrder: 10,
		RAMBytes: 8 << 30, Release: "Linux 6.12",
	},
	PageShift: 12,
}

func mustAgent(t *testing.T, guest Guest, walker walk.Walker) *Agent {
	t.Helper()
	a, err := New(guest, walker, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.ram = func() (uint64, error) { return guest.Hello.RAMBytes, nil }
	return a
}
