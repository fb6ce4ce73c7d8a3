// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

func TestTargetsAreComparedWithTheFigures(t *testing.T) {
	byPostcopy := func(m method, by transport, lead, requests int64) record {
		r := made(midLoad, m, 1, 500, 100)
		r.Link, r.Transport, r.LeadMS, r.Requests = gigabit, by, lead, requests
		return r
	}
	good := []record{made(noLoad, fbpp, 1, 100, 100), made(noLoad, freePageHint, 1, 1000, 800),
		made(noLoad, introspect, 1, 28, 102), made(noLoad, stock, 1, 100, 1000),
		made(fresh, fbpp, 1, 50, 100), made(fresh, stock, 1, 50, 100), made(fragmented, fbpp, 1, 1, 100),
		byPostcopy(stock, stream, 500, 0), byPostcopy(stock, postcopy, 5, 1000),
		byPostcopy(fbppSample, hybrid, 100, 100)}
	bad := []record{made(noLoad, fbpp, 1, 101, 101), made(noLoad, freePageHint, 1, 1000, 800),
		made(noLoad, introspect, 1, 29, 105), made(noLoad, stock, 1, 100, 1000),
		made(fresh, fbpp, 1, 51, 100), made(fresh, stock, 1, 50, 100), made(fragmented, fbpp, 1, 1, 100),
		byPostcopy(stock, stream, 499, 0), byPostcopy(stock, postcopy, 5, 1000),
		byPostcopy(fbppSample, hybrid, 100, 101)}
	for i := range bad {
		bad[i].FloorBytes = bad[i].Transferred / 2
		if bad[i].Method.hints() {
			bad[i].DowntimeMS, bad[i].Skipped = 1, 900
			bad[i].Exchange.Exchange = 50_100
			bad[i].Exchange.Details[0].Value = 3000
		}
	}
	cases := fullMatrix(mustSizes(t, 64<<10, 0), 1)
	for _, tt := range targets(summarize(cases, good), false) {
		if !tt.Met {
			t.Errorf("good figures miss %q: %s", tt.Text, tt.Seen)
		}
	}
	missed := targets(summarize(cases, bad), false)
	if len(missed) != 16 {
		t.Errorf("%d targets were judged, want 16", len(missed))
	}
	for _, tt := range missed {
		if tt.Met {
			t.Errorf("bad figures meet %q: %s", tt.Text, tt.Seen)
		}
	}
}

func TestHoldsAreScaledToHardware(t *testing.T) {
	for name, tc := range map[string]struct {
		hold hold
		want float64
	}{
		"emulated, twice as slow":    {hold{1000, 2 * nativeBlock, true}, 500},
		"as fast as hardware":        {hold{1000, nativeBlock, true}, 1000},
		"faster than what we assume": {hold{1000, nativeBlock / 3, true}, 1000},
		"not emulated":               {hold{2000, 3 * nativeBlock, false}, 2000},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.hold.scaled(); got != tc.want {
				t.Errorf("%v: %v µs, want %v", tc.hold, got, tc.want)
			}
		})
	}
}

// A hybrid migration that was over before it could switch is no failure, and the table says so.
func TestHybridThatWasOverIsNamed(t *testing.T) {
	var records []record
	for _, came := range []string{"switched", notNeeded, notNeeded} {
		r := made(midLoad, fbppSample, len(records)+1, 500, 100)
		r.Link, r.Transport = gigabit, hybrid
		r.Exchange = &vm.Hints{Generation: 1, Hybrid: came}
		records = append(records, r)
	}
	c := benchCase{midLoad, fbppSample, gigabit, hybrid}
	cases := []planned{{benchCase: c, rounds: 3}}
	const want = "hybrid (2 of 3 by precopy alone)"
	if got := summarize(cases, records)[0].way(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := summarize(cases, records[:1])[0].way(); got != "hybrid" {
		t.Errorf("%q", got)
	}
}
