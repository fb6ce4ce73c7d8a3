// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Errors of Count and Sample.
var (
	// ErrNoProgramOfKind says that the guest has no program of the kind in use.
	ErrNoProgramOfKind = errors.New("the guest has no such program in use: push one of the kind")
	// ErrNoAnswer says that the driver has not done what it was asked for, or that its session
	// has ended.
	ErrNoAnswer = errors.New("the guest has not answered")
	// ErrInquiring says that another caller waits for an answer.
	ErrInquiring = errors.New("a census or a sample is under way")
)

// asked is a COUNT or a SAMPLE that was sent. The source's mu guards it.
type asked struct {
	digest protocol.Digest
	number uint64
	answer chan finding // has room for one; closed when the session ends
	sample *Sample      // that grows with the parts; nil for a COUNT
}

// finding is the last answer to what was asked.
type finding struct {
	census  protocol.CensusReport
	sample  *Sample
	session *session // in which it came
}

// inquire asks the program of a kind that is in use, and waits for the last answer. sample, unless
// nil, receives the parts; nothing writes to it when inquire has returned. It fails with
// ErrNoProgramOfKind, ErrInquiring, ErrNoAnswer, and when ctx ends.
func (s *Source) inquire(
	ctx context.Context, kind protocol.ProgramKind, sample *Sample,
) (finding, error) {
	a, err := s.ask(kind, sample)
	if err != nil {
		return finding{}, err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.programs.asked == a {
			s.programs.asked = nil
		}
	}()
	select {
	case f, ok := <-a.answer:
		if !ok {
			return f, fmt.Errorf("its session has ended: %w", ErrNoAnswer)
		}
		return f, nil
	case <-ctx.Done():
		return finding{}, fmt.Errorf("await the guest's %v: %w", kind, context.Cause(ctx))
	}
}

// ask sends the question.
func (s *Source) ask(kind protocol.ProgramKind, sample *Sample) (*asked, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.programs
	d, ok := p.inUse(kind)
	switch {
	case p.asked != nil:
		return nil, ErrInquiring
	case p.session == nil || !ok:
		return nil, fmt.Errorf("%w %v", ErrNoProgramOfKind, kind)
	case s.open != nil:
		return nil, fmt.Errorf("a migration asks the guest now: %w", ErrNoAnswer)
	}
	p.inquiries++
	e := protocol.ProgramEvent{
		Type: protocol.EventCount, Nonce: p.session.nonce, Digest: d, Number: p.inquiries,
	}
	if sample != nil {
		e.Type, e.Interval = protocol.EventSample, sample.Interval
	}
	if !s.sendProgram(&e) {
		return nil, fmt.Errorf("the driver has no buffer for the question: %w", ErrNoAnswer)
	}
	p.asked = &asked{d, e.Number, make(chan finding, 1), sample}
	return p.asked, nil
}

// inUse returns the program of a kind that the guest says is in use, whoever has pushed it
// [FBPP-CEN-1].
func (p *programs) inUse(kind protocol.ProgramKind) (d protocol.Digest, ok bool) {
	active := func(r *protocol.ProgramReport) bool {
		return r.Kind == kind && r.State == protocol.ProgramActive
	}
	for _, o := range p.offered {
		if active(&o.report) {
			return o.Offer.Digest, true
		}
	}
	for i := range p.strangers {
		if active(&p.strangers[i]) {
			return p.strangers[i].Digest, true
		}
	}
	return d, false
}

// awaited returns what was asked, if an answer is to it. Any other has no effect [FBPP-CEN-3].
func (p *programs) awaited(sample bool, d protocol.Digest, number uint64) *asked {
	a := p.asked
	if a == nil || a.number != number || a.digest != d || sample != (a.sample != nil) {
		return nil
	}
	return a
}

// endInquiry is called when a session ends.
func (p *programs) endInquiry() {
	if p.asked != nil {
		close(p.asked.answer)
		p.asked = nil
	}
}
