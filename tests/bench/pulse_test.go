// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Work at an even pace that stands still from 250 to 400 ms, and goes on at half the pace.
func TestPulseInSteps(t *testing.T) {
	var beats []beat
	count := uint64(1000)
	for at := -pulseAround; at <= 1600*time.Millisecond; at += 5 * time.Millisecond {
		beats = append(beats, beat{at, count})
		switch ms := at.Milliseconds(); {
		case ms < 250:
			count += 4
		case ms >= 400:
			count += 2
		}
	}
	got := newPulseRecord(beats, 600*time.Millisecond)
	want := &pulseRecord{
		Before: []uint64{80, 80, 80, 80, 80, 80, 80, 80, 80, 80},
		Steps:  []uint64{80, 80, 40, 0, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40},
		// 280 of 480
		PauseMS: 150, Achieved: 280. / 480, EndMS: 600,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if p := newPulseRecord(nil, time.Second); p.Achieved != 0 {
		t.Errorf("nothing was seen: %+v", p)
	}
}

// The chart names each way, and draws it on one axis of time.
func TestPulseChart(t *testing.T) {
	steps := func(n int) *pulseRecord {
		p := &pulseRecord{Before: []uint64{100}, Achieved: 0.5, PauseMS: 77, EndMS: int64(n-10) * 100}
		for range n {
			p.Steps = append(p.Steps, 50)
		}
		return p
	}
	records := map[load][]record{midLoad: {
		{run: run{benchCase: benchCase{midLoad, stock, gigabit, stream}}, Pulse: steps(40)},
		{run: run{benchCase: benchCase{midLoad, fbppSample, gigabit, hybrid}}, Pulse: steps(20)},
	}}
	dir := t.TempDir()
	if err := writePulses(dir, records, "caption"); err != nil {
		t.Fatal(err)
	}
	svg := string(mustRead(t, filepath.Join(dir, "pulse-mid-load.svg")))
	words := []string{"mid load", "fbpp, sample", "hybrid", "pause 77 ms", "4 s", "caption"}
	for _, want := range words {
		if !strings.Contains(svg, want) {
			t.Errorf("the chart does not say %q", want)
		}
	}
	if n := strings.Count(svg, "<path"); n < 62 {
		t.Errorf("%d shapes for 62 steps", n)
	}
	if rows := pulseTable(records).Rows; len(rows) != 2 || rows[1][5] != "50 %" {
		t.Errorf("the table is %v", rows)
	}
	for _, with := range []string{"--quick", "--growth", "--trace", "--anew", "--redraw=x"} {
		if _, err := parse([]string{"--pulse", with}, io.Discard); err == nil {
			t.Errorf("--pulse %s is accepted", with)
		}
	}
}
