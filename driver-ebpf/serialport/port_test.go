// SPDX-License-Identifier: Apache-2.0

package serialport

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
)

var lockdown = Obstacle{Status: protocol.StatusLockdown, Reason: "kernel lockdown is at integrity"}

// mustConnect returns a port and the host's side of it. A socket takes the place of the
// kernel's port: it does not block, and its reader gets no bytes when the other side has hung
// up.
func mustConnect(t testing.TB) (*Port, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	p, err := newPort(fds[0], lockdown)
	if err != nil {
		t.Fatal(err)
	}
	host := os.NewFile(uintptr(fds[1]), "host")
	t.Cleanup(func() {
		host.Close()
		p.Close()
	})
	return p, host
}

func event(of protocol.EventType, flags uint16, generation uint64) []byte {
	e := protocol.Event{Type: of, Flags: flags, Generation: generation}
	p := make([]byte, protocol.EventSize)
	e.Encode(p)
	return p
}

func mustWrite(t testing.TB, w io.Writer, p []byte) {
	t.Helper()
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
}

func TestEventsComeWhateverTheirPieces(t *testing.T) {
	p, host := mustConnect(t)
	if e, ok, err := p.Receive(0); ok || err != nil {
		t.Fatalf("%v, %v, %v from an empty port", e, ok, err)
	}
	if e, ok, err := p.Receive(time.Millisecond); ok || err != nil {
		t.Fatalf("%v, %v, %v from an empty port", e, ok, err)
	}
	stream := append(event(protocol.EventReportFree, 0, 7), event(protocol.EventCancel, 0, 8)...)
	mustWrite(t, host, stream[:20])
	if e, ok, err := p.Receive(0); ok || err != nil {
		t.Fatalf("%v, %v, %v from a part of an event", e, ok, err)
	}
	mustWrite(t, host, stream[20:])
	for _, want := range []uint64{7, 8} {
		e, ok, err := p.Receive(agent.Forever)
		if !ok || err != nil || e.Generation != want {
			t.Fatalf("%v, %v, %v; want generation %d", e, ok, err, want)
		}
	}
}

func TestEventsAboutProgramsAreNone(t *testing.T) {
	p, host := mustConnect(t)
	mustWrite(t, host, event(protocol.EventOffer, 0, 1))
	mustWrite(t, host, event(protocol.EventCancel, 0, 2))
	if e, ok, err := p.Receive(0); ok || err != nil {
		t.Fatalf("%v, %v, %v for an offer", e, ok, err)
	}
	if e, ok, err := p.Receive(0); !ok || err != nil || e.Generation != 2 {
		t.Fatalf("%v, %v, %v after it", e, ok, err)
	}
}

// The agent refuses until the host asks, and again when the host takes no reports any more.
func TestHelloIsOKWhenTheHostAsks(t *testing.T) {
	p, host := mustConnect(t)
	able := agent.Guest{Hello: protocol.Hello{Features: protocol.FeaturePrograms}, PageShift: 12}
	requireRefusal := func() {
		t.Helper()
		g := p.Introduce(able)
		if g.Status != lockdown.Status || g.Hello.Reason != lockdown.Reason ||
			g.Hello.Features != protocol.FeaturePort {
			t.Errorf("HELLO says %+v", g)
		}
	}
	requireRefusal()
	for range 2 {
		mustWrite(t, host, event(protocol.EventChanged, protocol.EventHelloWanted, 0))
		e, ok, err := p.Receive(0)
		if !ok || err != nil || e.Flags&protocol.EventHelloWanted == 0 {
			t.Fatalf("%v, %v, %v", e, ok, err)
		}
		if g := p.Introduce(able); g.Status != protocol.StatusOK ||
			g.Hello.Features != protocol.FeaturePort {
			t.Errorf("HELLO says %+v", g)
		}
		mustWrite(t, host, event(protocol.EventChanged, 0, 0))
		if e, ok, err = p.Receive(0); !ok || err != nil || e.Flags&protocol.EventHelloWanted == 0 {
			t.Fatalf("%v, %v, %v: the agent would not say HELLO", e, ok, err)
		}
		requireRefusal()
	}
	other := agent.Guest{Status: protocol.StatusContentMatters, PageShift: 12}
	other.Hello.Reason = "page_poison is on"
	if g := p.Introduce(other); g != other {
		t.Errorf("HELLO of a guest that must not report says %+v", g)
	}
}

func TestHostThatHangsUpEndsReceiveAndSend(t *testing.T) {
	p, host := mustConnect(t)
	mustWrite(t, host, event(protocol.EventCancel, 0, 1))
	mustWrite(t, host, []byte{1, 2, 3})
	host.Close()
	if _, ok, err := p.Receive(agent.Forever); !ok || err != nil {
		t.Fatalf("%v, %v for the event before", ok, err)
	}
	if _, ok, err := p.Receive(agent.Forever); ok || !errors.Is(err, ErrHungUp) {
		t.Fatalf("%v, %v, want ErrHungUp", ok, err)
	}
	if err := p.Send(agent.Message{Head: make([]byte, 32)}); err == nil {
		t.Error("a message went to nobody")
	}
}

func TestInterruptEndsReceive(t *testing.T) {
	p, _ := mustConnect(t)
	p.Interrupt()
	if _, ok, err := p.Receive(agent.Forever); ok || !errors.Is(err, agent.ErrInterrupted) {
		t.Fatalf("%v, %v, want ErrInterrupted", ok, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.Interrupt()                 // does nothing
	p.fd, p.wake = dup(t), dup(t) // for the cleanup
}

func dup(t *testing.T) int {
	t.Helper()
	fd, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// A message that is longer than what the host takes at a time arrives whole, also if the
// agent is interrupted meanwhile.
func TestMessagesArriveWhole(t *testing.T) {
	p, host := mustConnect(t)
	if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte{7}, p.MaxBody())
	const messages = 5
	got := make(chan []byte)
	go func() {
		p := make([]byte, messages*(32+len(body)+32))
		_, _ = io.ReadFull(host, p)
		got <- p
	}()
	p.Interrupt()
	var want []byte
	for i := range messages {
		head, tail := bytes.Repeat([]byte{byte(i)}, 32), bytes.Repeat([]byte{byte(64 + i)}, 32)
		if err := p.Send(agent.Message{Head: head, Body: body, Tail: tail}); err != nil {
			t.Fatal(err)
		}
		want = append(append(append(want, head...), body...), tail...)
	}
	if !bytes.Equal(<-got, want) {
		t.Error("the messages arrived otherwise")
	}
	if _, _, err := p.Receive(agent.Forever); !errors.Is(err, agent.ErrInterrupted) {
		t.Errorf("error %v: the interrupt was lost", err)
	}
}

// Whatever the host writes, the agent takes events of 32 bytes, and goes on.
func FuzzReceive(f *testing.F) {
	f.Add(append(event(protocol.EventReportFree, 1, 7), event(protocol.EventOffer, 0, 1)...))
	f.Add(event(protocol.EventChanged, protocol.EventHelloWanted, 0)[:31])
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 32<<10 {
			return
		}
		p, host := mustConnect(t)
		mustWrite(t, host, stream)
		host.Close()
		for range len(stream)/protocol.EventSize + 1 {
			e, ok, err := p.Receive(agent.Forever)
			if ok && e.Type.IsProgram() {
				t.Fatalf("%v came by the port", e)
			}
			if errors.Is(err, ErrHungUp) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Fatal("more events than bytes")
	})
}
