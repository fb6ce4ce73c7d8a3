// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/fbpp-project/fbpp/tests/lab"
)

// arrival is a round without what is about pages that are sent. A hand-over is too short to be
// cancelled after some time.
func (r Round) arrival() Round {
	r.Capabilities, r.Bandwidth, r.CancelAfter = nil, 0, 0
	return r
}

// arrive plays a round from a pool of its own. If the guest was heard some of its memory has to be
// skipped, and none otherwise.
func arrive(t *testing.T, g *Guest, r Round) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	dir, remove := lab.MustSharedDir(t)
	defer remove()
	result, load, err := g.Arrive(ctx, r, filepath.Join(dir, "pool"))
	if err != nil {
		t.Fatalf("%v\n%v", r, err)
	}
	requireHeard(t, r, result)
	if heard := result.Migration.HintStatus() == "ok"; heard != (load.Skipped > 0) {
		t.Fatalf("%v\nthe hints are %+v, and %d bytes need not arrive",
			r, result.Migration.Hints, load.Skipped)
	}
	if result.Verified == 0 {
		t.Fatalf("%v\nno page was compared", r)
	}
	return result
}

// Memory that arrives from a pool is whole, whenever the guest writes to what it has called free.
func TestNoPageIsLostThatArrives(t *testing.T) {
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			g := mustBoot(t, m.Options)
			var struck strikes
			for _, r := range Sweep() {
				if len(r.Capabilities) > 0 || r.Bandwidth != 0 || r.CancelAfter != 0 {
					continue // its like is there
				}
				result := arrive(t, g, r)
				requireWhole(t, r, result)
				struck.add(result)
			}
			struck.require(t)
			for n := range *rounds {
				r := Random(*seed, uint64(n)).arrival()
				requireWhole(t, r, arrive(t, g, r))
			}
		})
	}
}

// So is memory of which somebody else has said what is free, who reads it while the guest runs.
func TestTableReaderLosesNoPageThatArrives(t *testing.T) {
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			m.TableReader = new(TableReader)
			g := mustBoot(t, m.Options)
			d := rand.New(rand.NewPCG(*seed, 15))
			dropped := uint64(0)
			for range 5 + *rounds {
				r := tableReaderRound(d, m.TableReader)
				requireWhole(t, r, arrive(t, g, r))
				dropped += m.TableReader.Dropped()
			}
			if dropped == 0 {
				t.Error("no entry of a free page was written: the test shows nothing")
			}
		})
	}
}

// Without arming pages are lost: TestNoPageIsLostThatArrives can fail.
func TestWithoutArmingPagesDoNotArrive(t *testing.T) {
	for _, m := range machines[:2] {
		t.Run(m.name, func(t *testing.T) {
			m.NoArming = true
			g := mustBoot(t, m.Options)
			for _, r := range distances() {
				result := arrive(t, g, r)
				if result.Inside == 0 {
					continue
				}
				requireNoneBefore(t, result)
				t.Logf("%d of %d pages are lost", result.Inside, result.Verified)
				return
			}
			t.Fatal("no page was lost: the adversary does not tell an armed migration from another")
		})
	}
}
