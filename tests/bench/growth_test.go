// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// grown are runs whose walk takes as many ms as its exponent says, and whose setup does not
// change.
func grown(a axis, exponent float64) []growth {
	var runs []growth
	for _, s := range steps() {
		if s.Axis == a {
			runs = append(runs, growth{
				step: s, Round: 1, SetupMS: 7, WalkUS: 2000 * math.Pow(float64(s.At), exponent),
			})
		}
	}
	return runs
}

func TestGrowthWorseThanLinearIsFound(t *testing.T) {
	if found := worse(grown(byMemory, 1)); found != nil {
		t.Errorf("linear growth: %v", found)
	}
	runs := grown(byVMs, 1)
	runs[2].WalkUS *= 4 // at 32 VMs; 4 times as many as at 8 before
	runs = append(runs, growth{step: runs[0].step, Round: 2, Error: "no", WalkUS: 1})
	want := []string{"Walk, ms, from 8 VMs to 32 VMs: to the power of 2.00"}
	if diff := cmp.Diff(want, worse(runs)); diff != "" {
		t.Error(diff)
	}
	runs = grown(byCPUs, 3)
	for i := range runs {
		runs[i].WalkUS /= 1e6 // too small to be measured
	}
	if found := worse(runs); found != nil {
		t.Errorf("growth of nothing: %v", found)
	}
}

func TestEachStepFitsWhatItNeeds(t *testing.T) {
	for _, s := range steps() {
		n, mib, cpus := s.guests()
		if n < 1 || mib < 384 || cpus < 1 || s.needs() < 2*n*mib/64 {
			t.Errorf("%v: %d guests with %d MiB and %d CPUs need %d MiB", s, n, mib, cpus, s.needs())
		}
		if s.needs() > 20<<10 {
			t.Errorf("%v needs %d MiB, more than a host of 24 GiB has to give", s, s.needs())
		}
	}
}

func TestGrowthContinues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "growth", "results.json")
	here := origin{CPU: "a", Commit: "1"}
	r, err := openGrowth(path, here, false)
	if err != nil {
		t.Fatal(err)
	}
	first, second := grown(byCPUs, 1)[0], grown(byCPUs, 1)[1]
	failed := second
	failed.Error = "no"
	for _, g := range []growth{first, failed} {
		if err := r.add(g); err != nil {
			t.Fatal(err)
		}
	}
	open := func(o origin, anew bool) *growthResults {
		t.Helper()
		r, err := openGrowth(path, o, anew)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r = open(origin{CPU: "a", Commit: "2"}, false)
	if !r.done(first.step, 1) || r.done(first.step, 2) || r.done(second.step, 1) {
		t.Errorf("what is done: %v", r.Runs)
	}
	if err := r.add(second); err != nil { // in place of the one that failed
		t.Fatal(err)
	}
	if r = open(here, false); !slices.Equal(r.Runs, []growth{first, second}) {
		t.Errorf("runs %v", r.Runs)
	}
	if r := open(origin{CPU: "b"}, false); len(r.Runs) != 0 {
		t.Errorf("runs of another machine: %v", r.Runs)
	}
	if err := r.add(first); err != nil {
		t.Fatal(err)
	}
	if r := open(here, true); len(r.Runs) != 0 {
		t.Errorf("--anew has runs: %v", r.Runs)
	}
}

func TestChartsOfGrowth(t *testing.T) {
	dir := t.TempDir()
	r := &growthResults{Runs: slices.Concat(grown(byMemory, 1), grown(byVMs, 2)[:1])}
	if err := r.draw(dir); err != nil {
		t.Fatal(err)
	}
	svg := string(mustRead(t, filepath.Join(dir, "growth-memory.svg")))
	for x := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := x.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"Growth with the guest", "Walk, ms", ">64<", ">128<", ">7.00<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("the chart does not say %q", want)
		}
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Error("the chart has numbers that are none")
	}
	mustRead(t, filepath.Join(dir, "growth-VMs.svg"))
}

func TestGrowthGoesAlone(t *testing.T) {
	for _, with := range []string{"--quick", "--memory=2048", "--publish=" + t.TempDir()} {
		if _, err := parse([]string{"--growth", with}, io.Discard); err == nil {
			t.Errorf("--growth %s is accepted", with)
		}
	}
}
