// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// maxWithdrawn bounds the withdrawals that are remembered.
const maxWithdrawn = 64

// withdrawal is a program that was taken back. It is remembered until the program is pushed
// again: a guest may come with the program in use at any time, from another host or an
// earlier process.
type withdrawal struct {
	name    string // "": another host's
	report  protocol.ProgramReport
	pending bool // the guest may have it in use, and has not said WITHDRAWN
	due     bool // WITHDRAW is to be sent as soon as there is a buffer
}

// Withdraw takes a program back: the guest is told to take it out of use, in this session
// or in a later one. The digest may be that of a program that another host pushed, if the
// guest has named it. Otherwise the error wraps [ErrNoProgram].
func (s *Source) Withdraw(d protocol.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.programs
	w := p.withdrawal(d)
	switch o := p.find(d); {
	case o != nil:
		o.abandon()
		p.offered = slices.DeleteFunc(p.offered, func(x *offered) bool { return x == o })
		w = &withdrawal{name: o.Offer.Name, report: o.report, pending: o.reached}
	case w != nil && w.pending: // it is told again
	default:
		i := slices.IndexFunc(p.strangers, func(r protocol.ProgramReport) bool {
			return r.Digest == d
		})
		if i < 0 {
			return fmt.Errorf("withdraw %v: %w", d, ErrNoProgram)
		}
		w = &withdrawal{report: p.strangers[i], pending: true}
	}
	p.forget(d)
	if len(p.withdrawn) == maxWithdrawn {
		s.lg.Warn("an old withdrawal is forgotten",
			zap.Stringer("digest", p.withdrawn[0].report.Digest),
			zap.Bool("pending", p.withdrawn[0].pending))
		p.withdrawn = p.withdrawn[1:]
	}
	w.due = p.session != nil
	p.withdrawn = append(p.withdrawn, w)
	s.flushPrograms()
	s.changed()
	return nil
}

func (p *programs) withdrawal(d protocol.Digest) *withdrawal {
	i := slices.IndexFunc(p.withdrawn, func(w *withdrawal) bool { return w.report.Digest == d })
	if i < 0 {
		return nil
	}
	return p.withdrawn[i]
}

// tell keeps what the guest says has become of the program. If it is in use, the guest is
// told once more.
func (w *withdrawal) tell(r protocol.ProgramReport) {
	// A guest that no longer knows the program does not know what it was.
	r.Kind, r.Version = w.report.Kind, w.report.Version
	w.report = r
	switch r.State {
	case protocol.ProgramActive:
		w.pending, w.due = true, true
	case protocol.ProgramWithdrawn:
		w.pending = false
	}
}

// end is called when a session ends.
func (w *withdrawal) end() {
	w.due = false
	if !w.pending {
		w.report.State = protocol.ProgramOffered // the next guest has not named it
	}
}

// shown says whether the program is worth a line in the status.
func (w *withdrawal) shown() bool {
	return w.pending || w.report.State != protocol.ProgramOffered
}

// flushWithdrawals sends what is due. It returns false if a buffer was missing.
func (s *Source) flushWithdrawals() bool {
	for _, w := range s.programs.withdrawn {
		if !w.due {
			continue
		}
		if !s.sendProgram(&protocol.ProgramEvent{
			Type: protocol.EventWithdraw, Nonce: s.programs.session.nonce, Digest: w.report.Digest,
		}) {
			return false
		}
		w.due = false
	}
	return true
}
