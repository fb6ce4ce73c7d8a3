// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// Programs decides about the programs that the host offers, and loads them. Its methods,
// except Load, are called by the goroutine of Run.
type Programs interface {
	// Accepts returns what the guest's owner takes.
	Accepts() protocol.Accepts

	// Check returns why an offer of this session is refused, or nil.
	Check(o *protocol.Offer, nonce uint64) error

	// Prepare says that an object is on its way, which Load may get. It returns at once.
	Prepare()

	// Load checks and loads an object. It is called in a goroutine of its own, also while an
	// earlier call has not returned. It returns soon after ctx has ended. An error may be [Logged].
	Load(ctx context.Context, o *protocol.Offer, object []byte) (io.Closer, error)

	// Use makes what Load returned for a walk the walk, which it closes in the end, also after
	// an error. It holds the offer against the policy once more, in the session with that
	// nonce. After an error the walk is the one before, or none if that was lost: then the
	// walker is nil.
	Use(o *protocol.Offer, nonce uint64, loaded io.Closer) (Guest, walk.Walker, error)

	// Restore makes the built-in program the walk again. Without one, and after an error, the
	// walker is nil.
	Restore() (Guest, walk.Walker, error)

	// Keep makes what Load returned for another kind the program of that kind, as Use does.
	// After an error that is the one before.
	Keep(o *protocol.Offer, nonce uint64, loaded io.Closer) error

	// Drop takes the program of a kind other than a walk out of use.
	Drop(kind protocol.ProgramKind) error

	// Count counts the guest's pages with the census. It is called in a goroutine of its own,
	// and returns soon after ctx has ended. It fails after Drop.
	Count(ctx context.Context) (protocol.CensusReport, error)

	// Sample finds the pages that the guest uses in the interval, with the sampler. It is called
	// as Count is. It calls part with bits of pages that were used, and of those that are free, the
	// first of them for the page frame first, which is a multiple of [protocol.SampledPages], and
	// ends with its error. What it returns says what that has cost.
	Sample(
		ctx context.Context, interval time.Duration, part func(first uint64, hot, free []byte) error,
	) (protocol.SampleReport, error)
}

// inUse are the programs of the host that are in use, by kind. Without a walk among them, the
// walk is the built-in one, or none.
type inUse map[protocol.ProgramKind]*protocol.Offer

// find returns the program with that digest, or nil.
func (u inUse) find(d protocol.Digest) *protocol.Offer {
	for _, o := range u {
		if o.Digest == d {
			return o
		}
	}
	return nil
}

// Logged is an error with the log of the kernel's verifier.
type Logged interface {
	error
	VerifierLog() string
}

// SetPrograms makes the agent take programs of the host. Call it before Run.
func (a *Agent) SetPrograms(p Programs) {
	if p.Accepts().Kinds == 0 {
		return
	}
	a.programs = p
	a.active = make(inUse)
	a.loads, a.inquiry.answers = make(chan load, 1), make(chan answer, 1)
	a.guest.Hello.Features |= protocol.FeaturePrograms
}

// newNonce returns the name of a session. It is random, so that no other session has it.
func newNonce() uint64 {
	var p [8]byte
	_, _ = rand.Read(p[:]) // documented to never fail
	return max(binary.LittleEndian.Uint64(p[:]), 1)
}

// sayAccepts begins a session: it says what is taken, and what is in use. Nothing is logged
// before ACCEPTS is sent: a log may be slow, and the device may ask as soon as it has HELLO.
func (a *Agent) sayAccepts(t Transport) error {
	if a.programs == nil {
		return nil
	}
	// The device that was asked, and that has asked, has gone.
	a.nonce, a.fetch.waiting, a.queue = newNonce(), false, nil
	a.inquiry.abandon()
	accepts := a.programs.Accepts()
	err := a.sendProgram(t, protocol.MessageAccepts, protocol.AcceptsSize, accepts.Encode)
	t.Flush()
	for _, kind := range protocol.Kinds() {
		if o := a.active[kind]; o != nil && err == nil {
			err = a.tell(t, o, protocol.ProgramActive, nil)
		}
	}
	return err
}

// sendProgram sends a message about programs, if the device knows them [FBPP-PROG-9].
func (a *Agent) sendProgram(
	t Transport, of protocol.MessageType, size int, encode func([]byte),
) error {
	if !a.known {
		return nil
	}
	head := make([]byte, protocol.HeaderSize+size)
	h := protocol.Header{Type: of, Generation: a.nonce, PageShift: a.guest.PageShift}
	h.Encode(head)
	encode(head[protocol.HeaderSize:])
	return t.Send(Message{Head: head})
}

// tell tells the device what became of a program. why may be nil.
func (a *Agent) tell(
	t Transport, o *protocol.Offer, state protocol.ProgramState, why error,
) error {
	r := protocol.ProgramReport{
		Digest: o.Digest, Kind: o.Kind, Version: o.Version, State: state,
	}
	if a.timed == o.Digest {
		r.FetchUS = saturate(uint64(a.fetch.took.Microseconds()))
		r.LoadUS = saturate(uint64(a.fetch.loadTook.Microseconds()))
	}
	fields := []zap.Field{zap.String("name", o.Name), zap.Uint64("version", o.Version),
		zap.Stringer("state", state)}
	if why != nil {
		r.Reason = why.Error()
		fields = append(fields, zap.Error(why))
	}
	if logged := Logged(nil); errors.As(why, &logged) {
		r.Log = logged.VerifierLog()
	}
	a.lg.Info("program of the host", fields...)
	err := a.sendProgram(t, protocol.MessageProgram, protocol.ProgramReportSize, r.Encode)
	t.Flush()
	return err
}

// adopt makes g and w what the agent is and uses, and says HELLO if that changes whether it
// reports.
func (a *Agent) adopt(t Transport, g Guest, w walk.Walker) error {
	before := a.guest.Status
	g.Hello.Features |= protocol.FeaturePrograms
	if a.guest, a.walker = g, w; g.Status != protocol.StatusOK {
		a.walker = nil
	}
	if g.Status == before {
		return nil
	}
	return a.greet(t)
}

// catchUp does what has to wait until no request is answered.
func (a *Agent) catchUp(ctx context.Context, t Transport) error {
	if o := a.toWithdraw; o != nil {
		a.toWithdraw = nil
		if err := a.withdrawn(t, o.Digest); err != nil {
			return err
		}
	}
	return errors.Join(a.loaded(t), a.retry(t), a.nextOffer(t), a.answered(ctx, t))
}

// loaded takes the result of a load, if there is one.
func (a *Agent) loaded(t Transport) error {
	select {
	case l := <-a.loads:
		return a.use(t, l)
	default: // also if the agent takes no programs: the channel is nil
		return nil
	}
}

// use puts a loaded program to use.
func (a *Agent) use(t Transport, l load) error {
	if l.fetch != a.fetch.number { // overtaken, or withdrawn
		if l.loaded != nil {
			if err := l.loaded.Close(); err != nil {
				a.lg.Warn("close a program that is not wanted any more", zap.Error(err))
			}
		}
		return nil
	}
	o := a.fetch.offer
	a.fetch.loadTook = a.now().Sub(a.fetch.done)
	a.fetch.offer, a.fetch.object = nil, nil
	if l.err != nil {
		return a.tell(t, o, protocol.ProgramRefused, l.err)
	}
	if o.Kind != protocol.KindWalk {
		if err := a.programs.Keep(o, a.nonce, l.loaded); err != nil {
			return a.tell(t, o, protocol.ProgramRefused, err)
		}
		a.inquiry.stopKind(o.Kind, errStopped)
		return a.activate(t, o)
	}
	// The device must have read what the walk before has found.
	if err := t.Drain(drainLimit); err != nil {
		return errors.Join(err, l.loaded.Close())
	}
	guest, walker, err := a.programs.Use(o, a.nonce, l.loaded)
	if err != nil {
		return a.notUsed(t, o, guest, walker, err)
	}
	if err := a.adopt(t, guest, walker); err != nil {
		return err
	}
	return a.activate(t, o)
}

// activate says that a program is in use, and the one before it no more.
func (a *Agent) activate(t Transport, o *protocol.Offer) error {
	before := a.active[o.Kind]
	a.active[o.Kind] = o
	if before != nil && before.Digest != o.Digest {
		if err := a.tell(t, before, protocol.ProgramWithdrawn, errReplaced); err != nil {
			return err
		}
	}
	return a.tell(t, o, protocol.ProgramActive, nil)
}

// notUsed says that a program failed its trial, and what the guest is after that.
func (a *Agent) notUsed(
	t Transport, o *protocol.Offer, guest Guest, walker walk.Walker, why error,
) error {
	if err := a.adopt(t, guest, walker); err != nil {
		return err
	}
	if before := a.active[protocol.KindWalk]; before != nil && a.walker == nil {
		delete(a.active, protocol.KindWalk)
		if err := a.tell(t, before, protocol.ProgramWithdrawn, errLost); err != nil {
			return err
		}
	}
	return a.tell(t, o, protocol.ProgramRefused, why)
}

// withdrawn takes a program out of use.
func (a *Agent) withdrawn(t Transport, d protocol.Digest) error {
	o := &protocol.Offer{Digest: d, Kind: protocol.KindWalk}
	if f := a.fetch.offer; f != nil && f.Digest == d {
		o = f
		a.fetch.end()
	} else if f := a.unqueue(d); f != nil {
		o = f
	}
	active := a.active.find(d)
	if active == nil {
		return a.tell(t, o, protocol.ProgramWithdrawn, nil)
	}
	if active.Kind != protocol.KindWalk {
		delete(a.active, active.Kind)
		a.inquiry.stopKind(active.Kind, errStopped)
		return a.tell(t, active, protocol.ProgramWithdrawn, a.programs.Drop(active.Kind))
	}
	if err := t.Drain(drainLimit); err != nil {
		return err
	}
	delete(a.active, active.Kind)
	guest, walker, err := a.programs.Restore()
	if err != nil {
		a.lg.Error("go back to the built-in program", zap.Error(err))
	}
	if err := a.adopt(t, guest, walker); err != nil {
		return err
	}
	return a.tell(t, active, protocol.ProgramWithdrawn, err)
}
