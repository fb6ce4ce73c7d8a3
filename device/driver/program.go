// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// When says when a program is offered to the guest.
type When string

// The moments.
const (
	AtNow       When = "now"       // and to each driver that comes later
	AtMigration When = "migration" // when a migration begins, before the driver is asked
)

// Set implements pflag.Value.
func (w *When) Set(text string) error {
	if at := When(text); at != AtNow && at != AtMigration {
		return fmt.Errorf("%q is neither %q nor %q", text, AtNow, AtMigration)
	}
	*w = When(text)
	return nil
}

// String implements pflag.Value.
func (w *When) String() string { return string(*w) }

// Type implements pflag.Value.
func (*When) Type() string { return "when" }

// Program describes a program and what the guest says has become of it. The guest may lie.
type Program struct {
	Digest  string     `json:"digest"` // SHA-256 of the object, in hex
	Kind    string     `json:"kind"`
	Version uint64     `json:"version"`
	State   string     `json:"state"`
	Reason  string     `json:"reason,omitempty"` // of the guest
	Log     string     `json:"log,omitempty"`    // the end of the verifier's log
	FetchUS uint32     `json:"fetch_us"`
	LoadUS  uint32     `json:"load_us"`
	At      When       `json:"at,omitempty"` // "": this host does not offer it
	Name    string     `json:"name,omitempty"`
	Size    uint32     `json:"size,omitempty"`
	KeyID   string     `json:"key_id,omitempty"` // "": not signed
	Expires *time.Time `json:"expires,omitempty"`

	// WithdrawalPending says that this host has withdrawn the program, and that the guest may
	// have it in use still: it is told as soon as it is there, and has not confirmed it.
	WithdrawalPending bool `json:"withdrawal_pending,omitempty"`
}

// maxStrangers bounds the programs that are kept of those which this host does not offer.
const maxStrangers = 8

// ErrNoProgram says that there is no program with a digest.
var ErrNoProgram = errors.New("no such program")

// programs is the state of the transfer of programs. The source's mu guards it.
type programs struct {
	offered   []*offered // at most one of a kind
	strangers []protocol.ProgramReport
	session   *session      // nil: no driver that takes programs
	withdrawn []*withdrawal // the newest last
	asked     *asked        // what the driver was asked to find out, or nil
	inquiries uint64        // number of the last COUNT or SAMPLE
	sample    *Sample       // the last one of this session, or nil
}

// Session describes a driver that takes programs.
type Session struct {
	Nonce   string   `json:"nonce"` // in hex; a signature may be bound to it
	Kinds   []string `json:"kinds"`
	MaxSize uint32   `json:"max_size"` // of an object, in bytes
}

// Session returns what the driver takes, or nil if it takes no programs.
func (s *Source) Session() *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.programs.session
	if x == nil {
		return nil
	}
	all := &Session{Nonce: fmt.Sprintf("%016x", x.nonce), Kinds: []string{}, MaxSize: x.MaxSize}
	for _, kind := range protocol.Kinds() {
		if x.Kinds&kind.Mask() != 0 {
			all.Kinds = append(all.Kinds, kind.String())
		}
	}
	return all
}

// session is what a driver said in its ACCEPTS.
type session struct {
	nonce uint64
	protocol.Accepts
}

// offered is a program of this host.
type offered struct {
	*bundle.Bundle
	at      When
	due     bool // to be offered as soon as there is a buffer
	reached bool // it was offered to a guest, or named by one: that may have it
	report  protocol.ProgramReport
	settled chan struct{} // closed when report.State is final, or the session has ended
}

// abandon ends the waits for the program.
func (o *offered) abandon() {
	if o.settled != nil && !o.report.State.Final() {
		close(o.settled)
	}
}

// reset forgets what a driver said.
func (o *offered) reset() {
	o.abandon()
	o.due, o.settled = false, make(chan struct{})
	o.report = protocol.ProgramReport{
		Digest: o.Offer.Digest, Kind: o.Offer.Kind, Version: o.Offer.Version,
	}
}

// tell keeps what became of the program.
func (o *offered) tell(r protocol.ProgramReport) {
	before := o.report.State
	o.report = r
	if r.State.Final() && !before.Final() {
		close(o.settled)
	} else if !r.State.Final() && before.Final() {
		o.settled = make(chan struct{})
	}
}

// Push makes the guest an offer of a program. It replaces the one of the same kind that
// was pushed before; the guest goes on with that until it has taken the new one.
func (s *Source) Push(b *bundle.Bundle, at When) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.programs
	o := &offered{Bundle: b, at: at}
	o.reset()
	if w := p.withdrawal(b.Offer.Digest); w != nil {
		o.reached = w.pending
	}
	p.offered = slices.DeleteFunc(p.offered, func(old *offered) bool {
		if old.Offer.Kind != b.Offer.Kind {
			return false
		}
		old.abandon()
		if old.Offer.Digest != b.Offer.Digest {
			p.keep(old.report)
			return true
		}
		o.reached = old.reached
		if old.report.State == protocol.ProgramActive {
			o.report = old.report
		}
		return true
	})
	p.offered = append(p.offered, o)
	p.forget(b.Offer.Digest)
	s.lg.Info("program pushed", zap.String("name", b.Offer.Name),
		zap.Uint64("version", b.Offer.Version), zap.String("at", string(at)))
	o.due = p.session != nil && at == AtNow
	s.flushPrograms()
	s.changed()
}

// keep remembers a program that is not offered.
func (p *programs) keep(r protocol.ProgramReport) {
	if r.State == protocol.ProgramOffered {
		return
	}
	p.forget(r.Digest)
	if len(p.strangers) == maxStrangers {
		p.strangers = p.strangers[1:]
	}
	p.strangers = append(p.strangers, r)
}

// forget forgets what was kept of a program, a withdrawal included.
func (p *programs) forget(d protocol.Digest) {
	p.withdrawn = slices.DeleteFunc(p.withdrawn, func(w *withdrawal) bool {
		return w.report.Digest == d
	})
	p.strangers = slices.DeleteFunc(p.strangers, func(r protocol.ProgramReport) bool {
		return r.Digest == d
	})
}

// end ends the session. What is offered stays offered to the next driver, and what is
// withdrawn stays withdrawn.
func (p *programs) end() {
	p.session, p.strangers, p.sample = nil, nil, nil
	p.endInquiry()
	for _, w := range p.withdrawn {
		w.end()
	}
	for _, o := range p.offered {
		o.reset()
	}
}

// Programs returns what is offered, and what the guest has named beside it.
func (s *Source) Programs() []Program {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Program
	for _, o := range s.programs.offered {
		p := describe(o.report)
		p.At, p.Name, p.Size = o.at, o.Offer.Name, o.Offer.Size
		if o.Offer.Signed() {
			p.KeyID = hex.EncodeToString(o.Offer.KeyID[:])
			expires := o.Offer.Expires
			p.Expires = &expires
		}
		all = append(all, p)
	}
	for _, r := range s.programs.strangers {
		all = append(all, describe(r))
	}
	for _, w := range s.programs.withdrawn {
		if w.shown() {
			p := describe(w.report)
			p.Name, p.WithdrawalPending = w.name, w.pending
			all = append(all, p)
		}
	}
	return all
}

func describe(r protocol.ProgramReport) Program {
	return Program{
		Digest: r.Digest.String(), Kind: r.Kind.String(), Version: r.Version,
		State: r.State.String(), Reason: r.Reason, Log: r.Log, FetchUS: r.FetchUS, LoadUS: r.LoadUS,
	}
}
