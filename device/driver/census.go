// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"fmt"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Count has the guest count its pages with the census that is in use, and returns what it
// says. The guest may lie. It fails with ErrNoProgramOfKind, ErrInquiring, ErrNoAnswer, and when
// ctx ends.
func (s *Source) Count(ctx context.Context) (protocol.CensusReport, error) {
	f, err := s.inquire(ctx, protocol.KindCensus, nil)
	if err == nil && f.census.Failed {
		err = fmt.Errorf("%w: it says %q", ErrNoAnswer, f.census.Reason)
	}
	return f.census, err
}

// counted takes an answer.
func (p *programs) counted(r protocol.CensusReport) {
	if a := p.awaited(false, r.Digest, r.Number); a != nil {
		p.asked = nil
		a.answer <- finding{census: r}
	}
}
