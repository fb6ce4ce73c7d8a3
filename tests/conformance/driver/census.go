// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"fmt"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// counting is a COUNT of the suite.
type counting struct {
	digest  protocol.Digest
	phantom bool // it has another nonce than the driver's: nothing may come of it
	answers int
}

// census judges a CENSUS.
func (j *judge) census(body []byte) error {
	r, err := protocol.DecodeCensusReport(body)
	if err != nil {
		return breaks(ruleFields, "%v", err)
	}
	j.note("driver: census %d of %.8v, failed %v, %q", r.Number, r.Digest, r.Failed, r.Reason)
	c := j.programs.counts[r.Number]
	switch {
	case c == nil:
		return breaks(ruleCount, "a CENSUS has the number %d, with which nothing was asked", r.Number)
	case c.phantom:
		return breaks(ruleSession, "the driver answers a COUNT of another session")
	case c.digest != r.Digest:
		return breaks(ruleCount, "a CENSUS is of the program %v, asked was for %v", r.Digest, c.digest)
	case c.answers > 0:
		return breaks(ruleCount, "a second CENSUS has the number %d", r.Number)
	}
	c.answers++
	return nil
}

// askForCensus is the scenario about censuses. The suite cannot have the driver use a program
// of its own, so the driver has nothing to count with: it has to say so.
func askForCensus(s *session) error {
	counts, short := false, false
	s.locked(func() {
		counts = s.judge.takes() && s.judge.programs.kinds&protocol.KindCensus.Mask() != 0
	})
	if !counts {
		return notPossible("the driver takes no programs that count")
	}
	nonce, err := s.newSession()
	if err != nil {
		return err
	}
	s.locked(func() { short = s.judgeBuffers() })
	if short {
		return nil // nothing can be asked
	}
	feigned := counting{digest: protocol.Digest{2}, phantom: true}
	if err := s.count(nonce^1, 1<<40, &feigned); err != nil {
		return err
	}
	for number := range uint64(2) {
		c := &counting{digest: protocol.Digest{3, byte(number)}}
		if err := s.count(nonce, 1<<41+number, c); err != nil {
			return err
		}
		err := s.awaitOr(ruleCount, "no CENSUS came in %v after a COUNT",
			func() bool { return c.answers > 0 })
		if err != nil {
			return fmt.Errorf("await census %d: %w", number, err)
		}
	}
	s.locked(func() { s.judge.saw(ruleCount, ruleSession) })
	return nil
}

// count sends COUNT.
func (s *session) count(nonce, number uint64, c *counting) error {
	return s.whenThereIsRoom(&protocol.ProgramEvent{
		Type: protocol.EventCount, Nonce: nonce, Digest: c.digest, Number: number,
	}, func() { s.judge.programs.counts[number] = c })
}
