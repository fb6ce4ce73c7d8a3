// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Errors of Count.
var (
	// ErrNoCensus says that the guest has no program of this kind in use.
	ErrNoCensus = errors.New("the guest has no census in use: push a program of the kind census")
	// ErrNotCounted says that the driver gave no census, or its session has ended.
	ErrNotCounted = errors.New("the guest has not counted")
	// ErrCounting says that another caller waits for a census.
	ErrCounting = errors.New("a census is under way")
)

// asked is a COUNT that was sent. The source's mu guards it.
type asked struct {
	digest protocol.Digest
	number uint64
	answer chan protocol.CensusReport // has room for one; closed when the session ends
}

// Count has the guest count its pages with the census that is in use, and returns what it
// says. The guest may lie. It fails with ErrNoCensus, ErrCounting, ErrNotCounted, and when ctx
// ends.
func (s *Source) Count(ctx context.Context) (protocol.CensusReport, error) {
	a, err := s.askCensus()
	if err != nil {
		return protocol.CensusReport{}, err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.programs.asked == a {
			s.programs.asked = nil
		}
	}()
	select {
	case r, ok := <-a.answer:
		switch {
		case !ok:
			return r, fmt.Errorf("its session has ended: %w", ErrNotCounted)
		case r.Failed:
			return r, fmt.Errorf("%w: it says %q", ErrNotCounted, r.Reason)
		}
		return r, nil
	case <-ctx.Done():
		return protocol.CensusReport{}, fmt.Errorf("await a census: %w", context.Cause(ctx))
	}
}

// askCensus sends COUNT.
func (s *Source) askCensus() (*asked, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.programs
	switch {
	case p.session == nil:
		return nil, ErrNoCensus
	case p.asked != nil:
		return nil, ErrCounting
	case s.open != nil:
		return nil, fmt.Errorf("a migration asks the guest now: %w", ErrNotCounted)
	}
	d, ok := p.census()
	if !ok {
		return nil, ErrNoCensus
	}
	p.counts++
	a := &asked{d, p.counts, make(chan protocol.CensusReport, 1)}
	if !s.sendProgram(&protocol.ProgramEvent{
		Type: protocol.EventCount, Nonce: p.session.nonce, Digest: d, Number: a.number,
	}) {
		return nil, fmt.Errorf("the driver has no buffer for the question: %w", ErrNotCounted)
	}
	p.asked = a
	return a, nil
}

// census returns the census that the guest says is in use, whoever has pushed it [FBPP-CEN-1].
func (p *programs) census() (d protocol.Digest, ok bool) {
	active := func(r *protocol.ProgramReport) bool {
		return r.Kind == protocol.KindCensus && r.State == protocol.ProgramActive
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

// counted takes an answer. One to another question has no effect [FBPP-CEN-3].
func (p *programs) counted(r protocol.CensusReport) {
	a := p.asked
	if a == nil || a.number != r.Number || a.digest != r.Digest {
		return
	}
	p.asked = nil
	a.answer <- r
}

// endCount is called when a session ends.
func (p *programs) endCount() {
	if p.asked != nil {
		close(p.asked.answer)
		p.asked = nil
	}
}
