// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// fakePrograms takes what its fields say.
type fakePrograms struct {
	check    error
	after    int // how many checks are passed before
	load     func(ctx context.Context, object []byte) error
	use      error
	lost     bool // after an error of Use there is no walk
	nonces   []uint64
	builtIn  walk.Walker // nil: none
	pushed   walk.Walker
	closed   int32
	restored int
	prepared int // how often

	kinds   uint32 // beside a walk
	counts  func(ctx context.Context) (protocol.CensusReport, error)
	samples sampleFunc
	kept    map[protocol.ProgramKind]int // how often
	dropped map[protocol.ProgramKind]int
}

func (p *fakePrograms) Accepts() protocol.Accepts {
	return protocol.Accepts{Kinds: protocol.KindWalk.Mask() | p.kinds, MaxSize: 1 << 20}
}

func (p *fakePrograms) Check(*protocol.Offer, uint64) error {
	if p.after--; p.after >= 0 {
		return nil
	}
	return p.check
}

func (p *fakePrograms) Prepare() { p.prepared++ }

func (p *fakePrograms) Load(
	ctx context.Context, _ *protocol.Offer, object []byte,
) (io.Closer, error) {
	if p.load != nil {
		if err := p.load(ctx, object); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *fakePrograms) Use(
	_ *protocol.Offer, nonce uint64, _ io.Closer,
) (Guest, walk.Walker, error) {
	p.nonces = append(p.nonces, nonce)
	switch {
	case p.use == nil:
		return testGuest, p.pushed, nil
	case p.lost:
		guest := testGuest
		guest.Status = protocol.StatusFailed
		return guest, nil, p.use
	}
	return testGuest, p.builtIn, p.use
}

func (p *fakePrograms) Restore() (Guest, walk.Walker, error) {
	p.restored++
	guest := testGuest
	if p.builtIn == nil {
		guest.Status = protocol.StatusUnsupported
	}
	return guest, p.builtIn, nil
}

func (p *fakePrograms) Keep(o *protocol.Offer, nonce uint64, _ io.Closer) error {
	p.nonces = append(p.nonces, nonce)
	p.kept[o.Kind]++
	return nil
}

func (p *fakePrograms) Drop(kind protocol.ProgramKind) error { p.dropped[kind]++; return nil }

func (p *fakePrograms) Count(ctx context.Context) (protocol.CensusReport, error) {
	return p.counts(ctx)
}

// sampleFunc is as Sample of Programs.
type sampleFunc func(
	ctx context.Context, interval time.Duration, part func(first uint64, hot, free []byte) error,
) (protocol.SampleReport, error)

func (p *fakePrograms) Sample(
	ctx context.Context, interval time.Duration, part func(first uint64, hot, free []byte) error,
) (protocol.SampleReport, error) {
	return p.samples(ctx, interval, part)
}

func (p *fakePrograms) Close() error {
	atomic.AddInt32(&p.closed, 1)
	return errors.New("it cannot be closed")
}

// loggedError is an error with a verifier's log.
type loggedError struct{ error }

func (loggedError) VerifierLog() string { return "R1 invalid" }

// host plays the device of a host with a program, on a fake transport.
type host struct {
	*fakeTransport
	t       *testing.T
	object  []byte
	version uint64
	room    int // bytes of DATA in a buffer
	lose    int // how many DATA are lost
	nonce   uint64
	states  []string
	reports []protocol.ProgramReport
	on      map[string]func() // by state, once
	gone    bool
	census  bool                    // a census is offered beside the walk
	sampler bool                    // so is a sampler
	last    bool                    // the walk is offered after them
	answers []protocol.CensusReport // of the driver
	samples []protocol.SampleReport
	drops   dropFunc // the guest's dropper; nil: none
}

func newHost(t *testing.T, n int) *host {
	h := &host{
		fakeTransport: newFakeTransport(), t: t, version: 1, room: part,
		object: bytes.Repeat([]byte("object!"), n/7+1)[:n], on: make(map[string]func()),
	}
	h.onSend = h.answer
	return h
}

func (h *host) digest() protocol.Digest { return protocol.Digest{byte(h.version)} }

func (h *host) send(e protocol.ProgramEvent) {
	e.Nonce = h.nonce
	h.program <- e
	h.events <- protocol.Event{Type: e.Type}
}

func (h *host) offer() {
	o := protocol.Offer{
		Digest: h.digest(), Kind: protocol.KindWalk, Size: uint32(len(h.object)),
		Version: h.version, Name: "walk",
	}
	offers := []protocol.Offer{o}
	if h.census {
		o.Digest, o.Kind, o.Name = censusDigest, protocol.KindCensus, "census"
		offers = append(offers, o)
	}
	if h.sampler {
		o.Digest, o.Kind, o.Name = samplerDigest, protocol.KindSampler, "sampler"
		offers = append(offers, o)
	}
	if h.last {
		slices.Reverse(offers)
	}
	for _, o := range offers {
		h.send(protocol.ProgramEvent{Type: protocol.EventOffer, Offer: o})
	}
}

// Digests of the census and of the sampler that a host offers.
var censusDigest, samplerDigest = protocol.Digest{0: 0xce}, protocol.Digest{0: 0x5a}

// count asks for a census.
func (h *host) count(number uint64) {
	h.send(protocol.ProgramEvent{Type: protocol.EventCount, Digest: censusDigest, Number: number})
}

func (h *host) withdraw() {
	h.send(protocol.ProgramEvent{Type: protocol.EventWithdraw, Digest: h.digest()})
}

// answer answers a message as a device does.
func (h *host) answer(m sentMessage) {
	body := m.head[protocol.HeaderSize:]
	switch m.header.Type {
	case protocol.MessageAccepts:
		h.nonce = m.header.Generation
		h.offer()
	case protocol.MessageGet:
		g, err := protocol.DecodeGet(body)
		if err != nil || m.header.Generation != h.nonce {
			h.t.Errorf("%v: %v", m.header, err)
			return
		}
		if h.lose--; h.lose >= 0 {
			return
		}
		e := protocol.ProgramEvent{Type: protocol.EventData, Digest: g.Digest, Offset: g.Offset}
		if h.gone {
			e = protocol.ProgramEvent{Type: protocol.EventGone, Digest: g.Digest}
		} else {
			e.Bytes = h.object[g.Offset:][:min(int(g.Length), h.room)]
		}
		h.send(e)
	case protocol.MessageProgram:
		r, err := protocol.DecodeProgramReport(body)
		if err != nil {
			h.t.Error(err)
		}
		state := r.State.String()
		if r.Kind != protocol.KindWalk {
			state = r.Kind.String() + " " + state
		}
		h.states = append(h.states, state)
		h.reports = append(h.reports, r)
		h.happened(state)
	case protocol.MessageCensus:
		r, err := protocol.DecodeCensusReport(body)
		if err != nil {
			h.t.Error(err)
		}
		h.answers = append(h.answers, r)
		h.happened("counted")
	case protocol.MessageSampled:
		r, err := protocol.DecodeSampleReport(body)
		if err != nil {
			h.t.Error(err)
		}
		h.samples = append(h.samples, r)
		if !r.IsPart() {
			h.happened("sampled")
		}
	}
}

// happened calls what was to be done when that happens.
func (h *host) happened(what string) {
	f := h.on[what]
	delete(h.on, what)
	if f != nil {
		f()
	}
}

// Receive also ends a wait that has a limit. Time is that of a synctest bubble.
func (h *host) Receive(limit time.Duration) (protocol.Event, bool, error) {
	if limit <= 0 {
		return h.fakeTransport.Receive(limit)
	}
	timer := time.AfterFunc(limit, h.Interrupt)
	defer timer.Stop()
	return h.fakeTransport.Receive(limit)
}

// play runs an agent on the host until nothing happens any more.
func (h *host) play(p *fakePrograms, guest Guest) (a *Agent) {
	h.t.Helper()
	synctest.Test(h.t, func(t *testing.T) {
		var err error
		var dropper CacheDropper
		if h.drops != nil {
			dropper = h.drops
		}
		if a, err = New(guest, p.builtIn, dropper, nil); err != nil {
			t.Fatal(err)
		}
		a.ram = func() (uint64, error) { return guest.Hello.RAMBytes, nil }
		a.SetPrograms(p)
		h.fakeTransport.events = make(chan protocol.Event, 64) // of this bubble
		h.fakeTransport.program = make(chan protocol.ProgramEvent, 64)
		h.fakeTransport.woken = make(chan struct{}, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := a.Run(ctx, h); err != nil {
			t.Error(err)
		}
	})
	return a
}

func wantStates(t *testing.T, h *host, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, h.states); diff != "" {
		t.Error(diff)
	}
}
