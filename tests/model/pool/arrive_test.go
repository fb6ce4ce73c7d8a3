// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math"
	"testing"
	"time"
)

// near tells whether a value is within a share of another one.
func near(got, want, share float64) bool { return math.Abs(got/want-1) <= share }

// Without a guest that touches it, memory arrives as fast as the narrowest part lets it.
func TestUntouchedMemoryArrivesAtTheNarrowestPart(t *testing.T) {
	const pages = 1 << 16
	idle := Guest{Pages: pages, Every: time.Hour}
	for _, tc := range []struct {
		name  string
		hosts int
		path  Path
		rate  float64
	}{
		{"the copy", 1, Path{Copy: 1e9, Link: 2e9}, 1e9},
		{"the bound", 1, Path{Copy: 1e9, Bound: 1e8}, 1e8},
		{"the link", 4, Path{Copy: 1e9, Link: 5e8, Pool: 1e10}, 5e8},
		{"the pool", 4, Path{Copy: 1e9, Link: 5e8, Pool: 1e9}, 25e7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, r := range Arrive(tc.hosts, idle, tc.path, 1) {
				if want := pages * PageSize / tc.rate; !near(r.Local.Seconds(), want, 0.01) || r.Faults != 0 {
					t.Errorf("%+v, want %.3f s", r, want)
				}
			}
		})
	}
}

// What a guest touches at random arrives by a fault as long as it is missing: docs/pool.md has the
// arithmetic.
func TestTouchesAtRandomFollowTheArithmetic(t *testing.T) {
	g := Guest{Pages: 1 << 16, Every: 50 * time.Microsecond}
	p := Path{Bound: 1e8}
	pages, touches, brought := float64(g.Pages), 1/g.Every.Seconds(), p.Bound/PageSize
	local := pages / touches * math.Log1p(touches/brought)
	r := Arrive(1, g, p, 1)[0]
	if !near(r.Local.Seconds(), local, 0.02) ||
		!near(float64(r.Faults), pages-brought*local, 0.05) {
		t.Errorf("%+v, want %.3f s and %.0f faults", r, local, pages-brought*local)
	}
}

// A guest waits for each page that it touches first, and no longer for hot ones that it has.
func TestAGuestWaitsForWhatItTouchesFirst(t *testing.T) {
	g := Guest{Pages: 1 << 16, Every: 10 * time.Microsecond, Hot: 0.01, HotTouches: 1}
	p := Path{Bound: 1e7, Fault: 20 * time.Microsecond, Link: PageSize * 1e5}
	r := Arrive(1, g, p, 1)[0]
	hot := int(g.Hot * float64(g.Pages))
	if r.Faults > hot || r.Faults < hot/2 || r.Touches < 100*hot {
		t.Errorf("%+v, and %d pages are hot", r, hot)
	}
	if want := time.Duration(r.Faults) * (p.Fault + 10*time.Microsecond); r.Waited != want {
		t.Errorf("it has waited %v, want %v", r.Waited, want)
	}
}
