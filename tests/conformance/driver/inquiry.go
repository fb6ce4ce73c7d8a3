// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// inquiry is a COUNT or a SAMPLE of the suite.
type inquiry struct {
	protocol.ProgramEvent
	rule    string // about its answer
	phantom bool   // it has another nonce than the driver's: nothing may come of it
	ends    int    // how many messages came that end the answer
}

// census judges a CENSUS.
func (j *judge) census(h protocol.Header, body []byte) error {
	r, err := protocol.DecodeCensusReport(body)
	if err == nil {
		j.note("driver: census %d of %.8v, failed %v, %q", r.Number, r.Digest, r.Failed, r.Reason)
	}
	return j.answers(h, r.Digest, r.Number, true, err)
}

// sampled judges a SAMPLED.
func (j *judge) sampled(h protocol.Header, body []byte) error {
	r, err := protocol.DecodeSampleReport(body)
	if err == nil {
		j.note("driver: sample %d of %.8v, state %d, %q", r.Number, r.Digest, r.State, r.Reason)
	}
	return j.answers(h, r.Digest, r.Number, !r.IsPart(), err)
}

// answers judges a CENSUS or a SAMPLED. One that is malformed breaks only the rule about that: it
// ends an answer all the same.
func (j *judge) answers(
	h protocol.Header, d protocol.Digest, number uint64, ends bool, malformed error,
) error {
	rule := ruleCount
	if h.Type == protocol.MessageSampled {
		rule = ruleSample
	}
	q := j.programs.inquiries[number]
	if q != nil && q.rule != rule {
		q = nil
	}
	var breach error
	switch {
	case malformed != nil:
		breach = breaks(ruleFields, "%v", malformed)
	case q == nil:
		return breaks(rule, "%v has the number %d, with which no such thing was asked", h, number)
	case q.phantom:
		return breaks(ruleSession, "the driver answers %v of another session", q.Type)
	case q.Nonce != h.Generation:
		return breaks(rule, "%v is of session %#x, asked was in %#x", h, h.Generation, q.Nonce)
	case q.Digest != d:
		return breaks(rule, "%v is of the program %v, asked was %v", h, d, q.Digest)
	case q.ends > 0:
		return breaks(rule, "%v comes after the end of the answer to %v %d", h, q.Type, number)
	}
	if q != nil && ends {
		q.ends++
	}
	return breach
}

// askFor returns the scenario about a kind of inquiry. The suite cannot have the driver use a
// program of its own, so the driver has nothing to answer with: it has to say so.
func askFor(kind protocol.ProgramKind, event protocol.EventType, rule string) func(*session) error {
	return func(s *session) error {
		takes, short := false, false
		s.locked(func() { takes = s.judge.takes() && s.judge.programs.kinds&kind.Mask() != 0 })
		if !takes {
			return notPossible(fmt.Sprintf("the driver takes no programs of the kind %v", kind))
		}
		nonce, err := s.newSession()
		if err != nil {
			return err
		}
		s.locked(func() { short = s.judgeBuffers() })
		if short {
			return nil // nothing can be asked
		}
		feigned := &inquiry{rule: rule, phantom: true}
		feigned.ProgramEvent = protocol.ProgramEvent{
			Type: event, Nonce: nonce ^ 1, Digest: protocol.Digest{2}, Number: 1<<40 + uint64(kind),
		}
		if err := s.inquire(feigned); err != nil {
			return err
		}
		// The device gives up what it has asked for at any time, and may ask again at once.
		var all [3]*inquiry
		for i := range all {
			all[i] = &inquiry{rule: rule}
			all[i].ProgramEvent = protocol.ProgramEvent{
				Type: event, Nonce: nonce, Digest: protocol.Digest{3, byte(i)},
				Number: uint64(1+i)<<41 + uint64(kind),
			}
			if event == protocol.EventSample {
				all[i].Interval = time.Duration(i) * time.Second
			}
			if err := s.inquire(all[i]); err != nil {
				return err
			}
		}
		for _, q := range all {
			err := s.awaitOr(rule, "no answer came in %v to "+event.String(),
				func() bool { return q.ends > 0 })
			if err != nil {
				return fmt.Errorf("await the answer to %v %d: %w", event, q.Number, err)
			}
		}
		s.locked(func() { s.judge.saw(rule, ruleSession) })
		return nil
	}
}

// inquire sends COUNT or SAMPLE.
func (s *session) inquire(q *inquiry) error {
	return s.whenThereIsRoom(&q.ProgramEvent, func() { s.judge.programs.inquiries[q.Number] = q })
}
