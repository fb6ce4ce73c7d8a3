// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"math"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// drop is what a request asks to drop first. The zero value asks for nothing.
type drop struct{ mib, ms uint32 }

// dropsCache has the driver drop a little cache, and all that it can in the time that it
// has. It must answer in time.
func dropsCache(s *session) error {
	can := false
	s.locked(func() {
		can = s.judge.driver != nil && s.judge.driver.Features&protocol.FeatureDropCache != 0
	})
	if !can {
		return notPossible("the driver's HELLO does not have the feature DROP_CACHE")
	}
	const most = math.MaxUint32
	for _, d := range []drop{{1, most}, {most, 1}, {8, 100}, {most, most}} {
		q := question{drop: d, deadline: min(s.c.Patience/2, 10*time.Second)}
		if err := s.exchange(q); err != nil {
			return err
		}
	}
	// An event ends the dropping, too.
	r, err := s.begin(question{drop: drop{most, most}})
	if err != nil {
		return err
	}
	return s.cancel(r.generation)
}

// dropped judges what the trailer of an answer says of dropped cache.
func (j *judge) dropped(r *request) {
	t := r.trailer
	if r.drop == (drop{}) {
		j.saw(ruleNotAsked)
		if t.Dropped != 0 || t.DropUS != 0 {
			j.broke(ruleNotAsked, "the trailer counts %d pages that were dropped in %d us,"+
				" and the request did not ask for it", t.Dropped, t.DropUS)
		}
		return
	}
	j.saw(ruleDropMost)
	if bytes := uint64(t.Dropped) << r.pageShift; bytes>>20 > uint64(r.drop.mib) ||
		bytes>>20 == uint64(r.drop.mib) && bytes&(1<<20-1) != 0 {
		j.broke(ruleDropMost, "the trailer counts %d bytes of dropped cache, asked for were %d MiB",
			bytes, r.drop.mib)
	}
}
