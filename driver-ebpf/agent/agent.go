// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// Guest is what HELLO tells the device about the guest.
type Guest struct {
	Hello     protocol.Hello
	Status    protocol.Status // other than OK: the guest cannot or must not report
	PageShift uint8
}

// Message returns the HELLO message.
func (g *Guest) Message() []byte {
	var p [protocol.HeaderSize + protocol.HelloSize]byte
	header := protocol.Header{Type: protocol.MessageHello, Status: g.Status, PageShift: g.PageShift}
	header.Encode(p[:])
	g.Hello.Encode(p[protocol.HeaderSize:])
	return p[:]
}

// Agent answers the device's requests. It must be used by one goroutine only.
type Agent struct {
	lg     *zap.Logger
	guest  Guest
	said   Guest       // in the last HELLO
	walker walk.Walker // nil: nothing is reported, which guest.Status explains
	// dropper is nil where cache cannot be dropped. dropping is its last work.
	dropper  CacheDropper
	dropping *drop
	now      func() time.Time
	ram      func() (uint64, error) // in bytes

	programs Programs // nil: the agent takes no programs of the host
	known    bool     // the device knows programs: otherwise it is told nothing of them
	nonce    uint64   // of the session
	active   inUse    // programs of the host
	fetch    fetch
	queue    []*protocol.Offer // that wait for the fetch of another kind
	inquiry  inquiry
	timed    protocol.Digest // the program that the times of fetch are about
	loads    chan load       // has room for one, which each fetch makes
	wake     waker           // interrupts the transport

	toWithdraw *protocol.Offer // the active one, after the walk that goes on; nil: none
}

// New returns an agent. Without a walker, guest's status has to say why. dropper is nil
// where HELLO does not say that cache can be dropped. lg may be nil.
func New(
	guest Guest, walker walk.Walker, dropper CacheDropper, lg *zap.Logger,
) (*Agent, error) {
	if lg == nil {
		lg = zap.NewNop()
	}
	if walker == nil && guest.Status == protocol.StatusOK {
		return nil, errors.New("make agent: no walker, and no reason why")
	}
	if guest.Status != protocol.StatusOK {
		walker, dropper = nil, nil
	}
	return &Agent{
		lg: lg, guest: guest, walker: walker, dropper: dropper, now: time.Now, ram: RAMBytes,
	}, nil
}

// Run says hello on a transport, and answers its events until ctx is done, which is no
// error, or the transport fails. The caller closes the transport.
//
// Run locks the goroutine to its thread, because the walk follows the reads of one
// thread only.
func (a *Agent) Run(ctx context.Context, t Transport) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer context.AfterFunc(ctx, t.Interrupt)()
	a.wake.set(t.Interrupt)
	defer a.wake.set(nil)
	if err := a.sayHello(t); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := a.catchUp(ctx, t); err != nil {
			return err
		}
		event, ok, err := t.Receive(a.waitFor())
		if errors.Is(err, ErrInterrupted) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive event: %w", err)
		}
		for ok { // another event may have ended the answer
			answered := event
			if event, ok, err = a.handle(ctx, t, event); err != nil {
				return err
			}
			// Log after the answer, because the log may go to a slow serial line.
			a.lg.Debug("event", zap.Stringer("event", answered))
		}
	}
	return nil
}

// handle answers one event. If another event ended the answer early, it returns that as
// next, with ok.
func (a *Agent) handle(ctx context.Context, t Transport, event protocol.Event) (
	next protocol.Event, ok bool, err error,
) {
	if event.Type.IsProgram() {
		return protocol.Event{}, false, a.program(ctx, t, false)
	}
	switch event.Type {
	case protocol.EventReportFree:
		return a.report(ctx, t, event)
	case protocol.EventChanged:
		if event.Flags&protocol.EventHelloWanted != 0 {
			return protocol.Event{}, false, a.sayHello(t) // [FBPP-INIT-4]
		}
	}
	// Nothing is under way that a CANCEL could end. Unknown events are ignored
	// [FBPP-EV-5].
	return protocol.Event{}, false, nil
}

// sayHello introduces the agent to a device that does not know it.
func (a *Agent) sayHello(t Transport) error {
	if err := a.sendHello(t); err != nil {
		return err
	}
	if err := a.sayAccepts(t); err != nil {
		return fmt.Errorf("say what programs are taken: %w", err)
	}
	t.Flush()
	a.logHello()
	return nil
}

// greet says HELLO within a session.
func (a *Agent) greet(t Transport) error {
	if err := a.sendHello(t); err != nil {
		return err
	}
	t.Flush()
	a.logHello()
	return nil
}

// sendHello sends HELLO. The device may be another one than before, and not know programs.
func (a *Agent) sendHello(t Transport) error {
	a.known = a.programs != nil && t.KnowsPrograms()
	a.said = t.Introduce(a.guest)
	if err := t.Send(Message{Head: a.said.Message()}); err != nil {
		return fmt.Errorf("send hello: %w", err)
	}
	return nil
}

func (a *Agent) logHello() {
	hello := &a.said.Hello
	a.lg.Info("said hello", zap.Stringer("status", a.said.Status),
		zap.Stringer("features", hello.Features), zap.String("reason", hello.Reason))
}
