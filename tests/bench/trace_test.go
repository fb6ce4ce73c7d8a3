// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// agentLog is what the agent writes to its standard error.
const agentLog = "2026-01-02T03:04:05.678Z\tINFO\treported\t" +
	`{"generation": 1, "started": "1ms", "drain": "9s", "walked": "9s", "walk": "9s"}` + "\n" +
	"2026-01-02T03:04:06.678Z\tINFO\treported\t" +
	`{"generation": 2, "started": "1ms", "drain": "2ms", "walked": "7.5ms", "walk": "500µs"}` +
	"\n2026-01-02T03:04:06.679Z\tINFO\tand so on\n"

func TestSpansAddUpToTheExchange(t *testing.T) {
	r, err := parseReported(agentLog)
	if err != nil {
		t.Fatal(err)
	}
	h := &vm.Hints{Exchange: 15_000, Phases: []vm.HintPhase{
		{Name: source.PhaseWakeup, Time: 3000}, {Name: source.PhaseWalk, Time: 500},
		{Name: source.PhaseTransfer, Time: 9000}, {Name: source.PhaseDecode, Time: 600},
		{Name: source.PhaseWrite, Time: 400},
	}}
	var got []time.Duration
	var sum time.Duration
	for _, s := range spans(h, r) {
		got, sum = append(got, s.time.Truncate(time.Microsecond)), sum+s.time
	}
	us := time.Microsecond
	want := []time.Duration{3000 * us, 2000 * us, 500 * us, 5000 * us, 2000 * us, 1000 * us, 1500 * us}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if sum != 15*time.Millisecond {
		t.Errorf("the spans are %v in all", sum)
	}
}

func TestALogWithoutAReportIsNoTrace(t *testing.T) {
	for _, log := range []string{
		"", "x\tINFO\treported\t{", "x\tINFO\treported\t{\"drain\": 1}\n",
		strings.ReplaceAll(agentLog, "ms", "parsecs"),
	} {
		if r, err := parseReported(log); err == nil {
			t.Errorf("%q has %v", log, r)
		}
	}
}

func TestTheTraceHasShares(t *testing.T) {
	all := [][]span{{{"one", 1}, {"two", 9}}, {{"one", 3}, {"two", 1}}, {{"one", 2}, {"two", 6}}}
	svg, err := drawTrace(medians(all), "a caption")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">one<", ">two<", ">25 %<", ">75 %<", ">a caption<"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the picture does not say %q", want)
		}
	}
	if _, err := drawTrace(medians([][]span{{{"one", 0}}}), ""); err == nil {
		t.Error("a picture of nothing")
	}
}
