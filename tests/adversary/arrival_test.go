// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// arrivals are the rounds of the sweep that do not depend on how pages are sent.
func arrivals() []Round {
	return slices.DeleteFunc(Sweep(), func(r Round) bool {
		return len(r.Capabilities) > 0 || r.CancelAfter != 0 || r.Bandwidth != 0 || r.ClearShift != 0
	})
}

// arrive plays a round from a pool of its own. If the guest was heard some of its memory has to be
// skipped, and none otherwise.
func arrive(t *testing.T, g *Guest, r Round) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("/dev/shm", "fbpp-pool-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
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
			for _, r := range arrivals() {
				requireWhole(t, r, arrive(t, g, r))
			}
		})
	}
}

// The same without arming loses pages: TestNoPageIsLostThatArrives can fail.
func TestWithoutArmingPagesDoNotArrive(t *testing.T) {
	for _, m := range machines[:2] {
		t.Run(m.name, func(t *testing.T) {
			m.NoArming = true
			g := mustBoot(t, m.Options)
			for _, r := range distances() {
				if result := arrive(t, g, r); result.Inside > 0 {
					t.Logf("%d of %d pages are lost", result.Inside, result.Verified)
					return
				}
			}
			t.Fatal("no page was lost: the adversary does not tell an armed migration from another")
		})
	}
}
