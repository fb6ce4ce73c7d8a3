// SPDX-License-Identifier: Apache-2.0

package census_test

import (
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

func TestEstimate(t *testing.T) {
	const mib = 1 << 20
	guest := census.Census{
		MemoryBytes: 1024 * mib, TouchedBytes: 600 * mib,
		Classes: []census.Class{
			{Class: pages.Free, Counts: introspect.Counts{Pages: 800 * 256}},
			{
				Class:  pages.File,
				Counts: introspect.Counts{Pages: 100 * 256, Clean: 90 * 256, Cold: 60 * 256},
			},
			{Class: pages.Anonymous, Counts: introspect.Counts{Pages: 124 * 256}},
		},
	}
	particular, small := guest, guest
	particular.ContentMatters = true
	small.TouchedBytes = 50 * mib
	for name, tc := range map[string]struct {
		census census.Census
		want   []uint64 // MiB: all, skip-free, cache-last and what of it is last, cache-drop
	}{
		"as it is":                        {guest, []uint64{600, 224, 224, 60, 164}},
		"contents of free pages matter":   {particular, []uint64{600, 600, 600, 60, 540}},
		"fewer bytes touched than in use": {small, []uint64{50, 50, 50, 50, 0}},
	} {
		var got []uint64
		for _, e := range tc.census.Estimate() {
			got = append(got, e.Bytes/mib)
			if e.Policy == census.CacheLast {
				got = append(got, e.LastBytes/mib)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v MiB, want %v", name, got, tc.want)
		}
	}
	timed := census.Census{TouchedBytes: 125_000_000}
	want := []census.Time{{GbitPerSecond: 1, Seconds: 1}, {GbitPerSecond: 2.5, Seconds: 0.4}}
	if got := timed.Estimate(1, 2.5)[0].Times; !slices.Equal(got, want) {
		t.Errorf("a gigabit takes %v, want %v", got, want)
	}
	if at := (census.Estimate{Bytes: 125_000_000}).At(1e9); at != time.Second {
		t.Errorf("a gigabit takes %v at a gigabit a second", at)
	}
}
