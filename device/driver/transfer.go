// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// programMessage handles a message about programs. s.mu is held, as in all that follows
// unless it says otherwise.
func (s *Source) programMessage(h protocol.Header, c content) error {
	if s.identity == nil { // the driver has said HELLO to an earlier process
		s.lg.Info("message for no session", zap.Stringer("message", h))
		return nil
	}
	if s.identity.Features&protocol.FeaturePrograms == 0 {
		return fmt.Errorf("%v of a driver that takes no programs: %w", h, protocol.ErrMalformed)
	}
	body := make([]byte, h.Size()-protocol.HeaderSize)
	if _, err := c.ReadAt(body, protocol.HeaderSize); err != nil {
		return fmt.Errorf("read %v: %w", h.Type, err)
	}
	if h.Type == protocol.MessageAccepts {
		return s.accepts(h, body)
	}
	p := &s.programs
	stale := p.session == nil || p.session.nonce != h.Generation
	if stale {
		s.lg.Info("message for no session", zap.Stringer("message", h))
	}
	if h.Type == protocol.MessageGet {
		get, err := protocol.DecodeGet(body)
		if err == nil && !stale {
			s.answerGet(get)
		}
		return err
	}
	if h.Type == protocol.MessageCensus {
		census, err := protocol.DecodeCensusReport(body)
		if err == nil && !stale {
			p.counted(census)
		}
		return err
	}
	if h.Type == protocol.MessageSampled {
		sample, err := protocol.DecodeSampleReport(body)
		if err == nil && !stale {
			p.sampled(sample, h.PageShift)
		}
		return err
	}
	report, err := protocol.DecodeProgramReport(body)
	if err == nil && !stale {
		s.programReport(report)
	}
	return err
}

// accepts begins a session: the driver is offered what there is.
func (s *Source) accepts(h protocol.Header, body []byte) error {
	a, err := protocol.DecodeAccepts(body)
	if err != nil {
		return err
	}
	if h.Generation == 0 {
		return fmt.Errorf("accepts with the nonce 0: %w", protocol.ErrMalformed)
	}
	p := &s.programs
	p.end()
	p.session = &session{h.Generation, a}
	for _, o := range p.offered {
		o.due = o.at == AtNow
	}
	for _, w := range p.withdrawn {
		w.due = w.pending
	}
	s.flushPrograms()
	s.changed()
	return nil
}

// programReport keeps what became of a program.
func (s *Source) programReport(r protocol.ProgramReport) {
	s.lg.Info("program in the guest", zap.Stringer("state", r.State),
		zap.Stringer("kind", r.Kind), zap.Uint64("version", r.Version),
		zap.Stringer("digest", r.Digest), zap.String("reason", r.Reason),
		zap.Uint32("fetch_us", r.FetchUS), zap.Uint32("load_us", r.LoadUS))
	if o := s.programs.find(r.Digest); o != nil {
		r.Kind, r.Version = o.Offer.Kind, o.Offer.Version // whatever the guest says
		o.reached = true
		o.tell(r)
	} else if w := s.programs.withdrawal(r.Digest); w != nil {
		w.tell(r)
		s.flushPrograms()
	} else {
		s.programs.keep(r)
	}
	s.changed()
}

func (p *programs) find(d protocol.Digest) *offered {
	i := slices.IndexFunc(p.offered, func(o *offered) bool { return o.Offer.Digest == d })
	if i < 0 {
		return nil
	}
	return p.offered[i]
}

// answerGet sends the bytes that the driver asked for, as many as its buffer takes. Without
// a buffer the driver has to ask again [FBPP-PROG-6].
func (s *Source) answerGet(g protocol.Get) {
	e := protocol.ProgramEvent{
		Type: protocol.EventGone, Nonce: s.programs.session.nonce, Digest: g.Digest,
	}
	o := s.programs.find(g.Digest)
	if o == nil || uint64(g.Offset)+uint64(g.Length) > uint64(len(o.Object)) {
		s.sendProgram(&e)
		return
	}
	e.Type, e.Offset = protocol.EventData, g.Offset
	e.Bytes = o.Object[g.Offset : g.Offset+g.Length]
	s.sendProgram(&e)
}

// sendProgram sends an event about a program; DATA is cut to the buffer. DATA, COUNT and SAMPLE
// leave another one: REPORT_FREE must not find that they have taken the last.
func (s *Source) sendProgram(e *protocol.ProgramEvent) bool {
	data := e.Type == protocol.EventData
	spare := data || e.Type == protocol.EventCount || e.Type == protocol.EventSample
	return s.sendInto(protocol.MinProgramBuffer, spare, func(room int) []byte {
		if data {
			e.Bytes = e.Bytes[:min(len(e.Bytes), room-protocol.DataHead)]
		}
		p := make([]byte, e.Size())
		e.Encode(p)
		return p
	})
}

// flushPrograms sends what is due, as far as there are buffers. What is left is sent when
// the driver has added some.
func (s *Source) flushPrograms() {
	p := &s.programs
	if p.session == nil {
		return
	}
	if !s.flushWithdrawals() {
		return
	}
	for _, o := range p.offered {
		switch why := p.session.refuses(o); {
		case !o.due:
		case why != "":
			o.due = false
			r := o.report
			r.State, r.Reason = protocol.ProgramRefused, why
			o.tell(r)
			s.changed()
		default:
			if !s.sendProgram(&protocol.ProgramEvent{
				Type: protocol.EventOffer, Nonce: p.session.nonce, Offer: o.Offer,
			}) {
				return
			}
			o.due, o.reached = false, true
		}
	}
}

// refuses says why the driver need not be offered a program, or "".
func (x *session) refuses(o *offered) string {
	switch {
	case x.Kinds&o.Offer.Kind.Mask() == 0:
		return "the guest takes no programs of this kind"
	case o.Offer.Size > x.MaxSize:
		return fmt.Sprintf("the guest takes no objects of more than %d bytes", x.MaxSize)
	}
	return ""
}

// inject offers the programs that wait for a migration, and waits until the driver is done
// with them, for half of the time at most: then it is asked with what it has. It returns
// how long that took. s.mu is not held.
func (s *Source) inject(ctx context.Context) time.Duration {
	begun := time.Now()
	if deadline, ok := ctx.Deadline(); ok {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	var waits []chan struct{}
	s.mu.Lock()
	for _, o := range s.programs.offered {
		if o.at == AtMigration && s.programs.session != nil && !o.report.State.Final() {
			o.due = o.report.State == protocol.ProgramOffered
			waits = append(waits, o.settled)
		}
	}
	s.flushPrograms()
	s.mu.Unlock()
	if len(waits) == 0 {
		return 0
	}
	for _, settled := range waits {
		select {
		case <-settled:
		case <-ctx.Done():
			s.lg.Warn("a program was not in use in time; the driver is asked with what it has")
			return time.Since(begun)
		}
	}
	return time.Since(begun)
}
