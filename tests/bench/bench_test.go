// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

func mustSizes(t *testing.T, host, wanted int) sizes {
	t.Helper()
	s, err := planSizes(host, wanted)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSizesFitTheHost(t *testing.T) {
	for name, tc := range map[string]struct{ host, wanted, guest int }{
		"a large host":           {64 << 10, 0, 8 << 10},
		"half of what is wanted": {10 << 10, 0, 4 << 10},
		"a wish":                 {64 << 10, 2048, 2048},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustSizes(t, tc.host, tc.wanted)
			if s.Guest != tc.guest || (s.Note == "") != (s.Guest == lab.FullGuest) {
				t.Errorf("got %+v", s)
			}
		})
	}
	if _, err := planSizes(1000, 0); err == nil {
		t.Error("a host without memory was accepted")
	}
	if _, err := planSizes(10<<10, 8<<10); err == nil {
		t.Error("a guest that does not fit was accepted")
	}
}

func TestBalloonsLeaveWhatTheLoadKeeps(t *testing.T) {
	s := mustSizes(t, 64<<10, 0)
	for _, p := range fullMatrix(s, 3) {
		if keep, ok := s.Balloons[p.Method]; ok && s.keeps(p.Load) > keep {
			t.Errorf("%v: the balloon leaves %d MiB, the load keeps %d", p.benchCase, keep, s.keeps(p.Load))
		}
	}
	if s.fits(highLoad, balloon4) || !s.fits(noLoad, balloon1) {
		t.Error("balloons are judged the wrong way round")
	}
}

func TestScheduleTakesCasesOfALinkInTurn(t *testing.T) {
	a, b := benchCase{Load: fresh, Method: stock}, benchCase{Load: fresh, Method: fbpp}
	slow := benchCase{Load: fresh, Method: stock, Link: gigabit}
	got := schedule([]planned{{a, 1}, {b, 3}, {slow, 2}})
	want := []run{{a, 1}, {b, 1}, {b, 2}, {b, 3}, {slow, 1}, {slow, 2}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFullMatrixLeavesOutNothingThatFits(t *testing.T) {
	s := mustSizes(t, 64<<10, 0)
	rounds := make(map[benchCase]int)
	for _, p := range fullMatrix(s, 3) {
		rounds[p.benchCase] += p.rounds
	}
	for _, l := range allLoads() {
		for _, m := range allMethods() {
			want := 3
			if !s.fits(l, m) {
				want = 0
			}
			if got := rounds[benchCase{l, m, unlimited, stream}]; got != want {
				t.Errorf("%s, %s: %d rounds, want %d", l, m, got, want)
			}
			got := rounds[benchCase{l, m, gigabit, stream}]
			if slices.Contains(paperLoads(), l) && got != want {
				t.Errorf("%s, %s, 1 Gib/s: %d rounds, want %d", l, m, got, want)
			}
		}
	}
	for _, c := range []benchCase{
		{noLoad, fbpp, unlimited, multifd},
		{noLoad, fbpp, unlimited, mappedRAM},
		{highLoad, stock, gigabit10, stream},
	} {
		if rounds[c] == 0 {
			t.Errorf("%v is left out", c)
		}
	}
}

// made returns a record with figures.
func made(l load, m method, round int, ms, bytes int64) record {
	r := record{
		run:     run{benchCase{l, m, unlimited, stream}, round},
		TotalMS: ms, Transferred: bytes, Normal: 1, Verified: 1,
	}
	if m.hints() {
		r.FloorBytes = bytes * 100 / 102
		r.FreePages, r.FreeBlocks = 1000, 100
		r.Skipped = 996
		r.Exchange = &vm.Hints{
			Generation: 7, Exchange: 11700, Skipped: 996,
			Phases:  []vm.HintPhase{{Name: source.PhaseWalk, Time: 40}},
			Details: []vm.HintDetail{{Name: vm.DetailHoldMax, Value: 1000}},
		}
	}
	return r
}

func TestRowsAreMediansWithTheirSpread(t *testing.T) {
	records := []record{
		made(noLoad, fbpp, 1, 300, 100), made(noLoad, fbpp, 2, 500, 100), made(noLoad, fbpp, 3, 400, 100),
		made(noLoad, stock, 1, 4000, 700),
	}
	rows := summarize([]planned{
		{benchCase{noLoad, fbpp, unlimited, stream}, 3}, {benchCase{noLoad, stock, unlimited, stream}, 3},
	}, records)
	if got, want := rows[0].Total, (spread{400, 300, 500, 3}); got != want {
		t.Errorf("total time %+v, want %+v", got, want)
	}
	if got := rows[0].AboveFloor.Median; got < 0.019 || got > 0.041 {
		t.Errorf("fbpp is %f above the floor, want 0.02", got)
	}
	if got := rows[1].AboveFloor.Median; got < 6 || got > 6.5 {
		t.Errorf("stock is %f above fbpp's floor, want 6.1", got)
	}
	if text := figure(rows[0].Total, "%.0f", "ms"); text != "400 (300–500) ms" {
		t.Errorf("a figure is written as %q", text)
	}
	if even := newSpread([]float64{4, 1}); even.Median != 2.5 {
		t.Errorf("median of two: %v", even.Median)
	}
}

func TestResultsAreContinued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench", "results.json")
	here := origin{Command: "first", QEMU: "10"}
	s := mustSizes(t, 64<<10, 2048)
	r, err := openResults(path, here, s, false)
	if err != nil {
		t.Fatal(err)
	}
	sound, failed := made(noLoad, fbpp, 1, 1, 1), made(noLoad, fbpp, 2, 1, 1)
	failed.Error = "no"
	for _, rec := range []record{sound, failed} {
		if err := r.add(rec); err != nil {
			t.Fatal(err)
		}
	}
	again := here
	again.Command, again.Commit = "second", "another"
	r, err = openResults(path, again, s, false)
	if err != nil {
		t.Fatal(err)
	}
	if !r.done(sound.run) || r.done(failed.run) {
		t.Errorf("sound run done: %v, failed run done: %v", r.done(sound.run), r.done(failed.run))
	}
	// The failed one is run again and replaced.
	failed.Error = ""
	if err := r.add(failed); err != nil || len(r.Records) != 2 || !r.done(failed.run) {
		t.Errorf("after the second try: %d records, %v", len(r.Records), err)
	}
	other := here
	other.QEMU = "11"
	for name, open := range map[string]func() (*results, error){
		"another QEMU": func() (*results, error) { return openResults(path, other, s, false) },
		"other programs": func() (*results, error) {
			changed := here
			changed.Programs = "2"
			return openResults(path, changed, s, false)
		},
		"anew": func() (*results, error) { return openResults(path, here, s, true) },
	} {
		r, err := open()
		if err != nil || len(r.Records) != 0 {
			t.Errorf("%s: %d records, %v", name, len(r.Records), err)
		}
		kept, err := filepath.Glob(path + ".until-*")
		if err != nil || len(kept) != 1 || r.aside != kept[0] {
			t.Fatalf("%s: earlier results are in %q, %v; it says %q", name, kept, err, r.aside)
		}
		if err := os.Rename(kept[0], path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openResults(path, here, s, false); err == nil {
		t.Error("a damaged file was accepted")
	}
}

func TestReportShowsFailures(t *testing.T) {
	dead := record{
		run:   run{benchCase{fresh, stock, unlimited, stream}, 1},
		Error: "the guest did not boot\nconsole",
	}
	damaged := made(noLoad, fbpp, 1, 1, 1)
	damaged.Mismatched = 3
	cases := []planned{
		{dead.benchCase, 1}, {damaged.benchCase, 1}, {benchCase{midLoad, stock, unlimited, stream}, 1},
		{benchCase{noLoad, stock, unlimited, multifd}, 1},
	}
	multi := made(noLoad, stock, 1, 5, 5)
	multi.Transport = multifd
	records := []record{dead, damaged, multi}
	r := newReport(&results{Records: records, Sizes: mustSizes(t, 64<<10, 0)}, cases)
	want := []string{
		"fresh, stock: round 1: the guest did not boot",
		"no load, fbpp: round 1: the guest found 3 damaged pages",
	}
	if diff := cmp.Diff(want, r.failures()); diff != "" {
		t.Error(diff)
	}
	text := r.markdown()
	for _, s := range []string{
		"FAILED", "not run", "| 1, 1 FAILED |", "Transport: multifd", "3 of 4 migrations",
	} {
		if !strings.Contains(text, s) {
			t.Errorf("the report does not say %q:\n%s", s, text)
		}
	}
	dir := t.TempDir()
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	has := func(s string) bool { return bytes.Contains(page, []byte(s)) }
	if !has("<svg") || has("<?xml") || !has("did not boot") {
		t.Error("the page lacks its pictures or its failures")
	}
	if _, err := os.Stat(filepath.Join(dir, "img", "total.svg")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "img", "total-1g.svg")); err == nil {
		t.Error("there is a picture of a link that nobody used")
	}
}

func TestOnlyAWholeMatrixWithoutFailuresSucceeds(t *testing.T) {
	good, failed := made(noLoad, fbpp, 1, 1, 1), made(noLoad, fbpp, 2, 1, 1)
	failed.Error = "the guest did not boot"
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx     context.Context
		records []record
		want    string
	}{
		"all is well": {t.Context(), []record{good}, ""},
		"one failed": {t.Context(), []record{good, failed},
			"1 migrations failed:\nno load, fbpp: round 2: the guest did not boot"},
		"one interrupted": {interrupted, []record{good}, "interrupted with 1 of 1 migrations done"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReport(&results{Records: tc.records, Sizes: mustSizes(t, 64<<10, 0)},
				[]planned{{good.benchCase, len(tc.records)}})
			dir, public := t.TempDir(), filepath.Join(t.TempDir(), "docs")
			err := conclude(tc.ctx, r, dir, public, io.Discard)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "report.html")); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(public); (err == nil) != (tc.want == "") {
				t.Errorf("published: %v", err == nil)
			}
		})
	}
}

func TestProgressLeavesOutWhatIsDone(t *testing.T) {
	var out bytes.Buffer
	done, todo := made(noLoad, fbpp, 1, 1, 1), made(noLoad, fbpp, 2, 1, 1)
	p := newProgress(&out, []run{done.run, todo.run}, &results{Records: []record{done}})
	var ran []run
	for r := range p.left() {
		ran = append(ran, r)
		p.say("boot")
		p.done(&todo)
	}
	if !slices.Equal(ran, []run{todo.run}) {
		t.Errorf("ran %v", ran)
	}
	if !strings.Contains(out.String(), "[2/2] no load, fbpp, round 2") {
		t.Errorf("it said %q", out.String())
	}
}

func TestProgressExpectsWhatIsKnown(t *testing.T) {
	known := made(noLoad, stock, 1, 20_000, 3<<30)
	known.TookMS = 40_000
	quick := made(noLoad, fbpp, 1, 1000, 1<<20)
	quick.TookMS = 20_000
	failed := made(noLoad, fbpp, 2, 1, 1)
	failed.Error = "no"
	p := newProgress(io.Discard, nil, &results{Records: []record{known, quick, failed}})
	for name, tc := range map[string]struct {
		c    benchCase
		want time.Duration
	}{
		"the same case": {known.benchCase, 40 * time.Second},
		// 24 s for 3 GiB, not 20
		"a slower link":            {benchCase{noLoad, stock, gigabit, stream}, 44 * time.Second},
		"a link that is no limit":  {benchCase{noLoad, stock, gigabit10, stream}, 40 * time.Second},
		"another load: the mean":   {benchCase{midLoad, stock, unlimited, stream}, 30 * time.Second},
		"the same method, multifd": {benchCase{noLoad, fbpp, unlimited, multifd}, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if got := p.expect(tc.c); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	runs := []run{{known.benchCase, 2}, {known.benchCase, 3}, {quick.benchCase, 2}}
	if left := p.remaining(runs); left != " (about 2m0s left)" {
		t.Errorf("remaining: %q", left)
	}
}

func TestUsageOfAProcess(t *testing.T) {
	u, err := readUsage(os.Getpid())
	if err != nil || u.resident < 1<<20 {
		t.Errorf("own usage: %+v, %v", u, err)
	}
	cpu, err := parseCPU("1 (a b) c) S 1 1 1 1 1 1 1 1 1 1 150 50 0 0")
	if err != nil || cpu != 2*time.Second {
		t.Errorf("got %v, %v", cpu, err)
	}
	for _, bad := range []string{"", "1 (x) S 1", "1 (x) S 1 1 1 1 1 1 1 1 1 1 x 50 0"} {
		if _, err := parseCPU(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
	if _, err := parseResident("VmSize: 1 kB\n"); err == nil {
		t.Error("a missing field was found")
	}
}

func TestFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--rounds=0"}, {"--rounds=-1"}, {"--rounds=some"}, {"--kernel=5.4"}, {"--kernel="},
		{"--publish=" + file}, {"--publish=" + filepath.Join(file, "below")},
		{"extra"}, {"--only=("}, {"--fast"},
	} {
		if _, err := parse(args, io.Discard); !errors.As(err, new(cli.UsageError)) {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
	o, err := parse([]string{"--only", "^no load, fbpp$"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if m := o.matrix(mustSizes(t, 64<<10, 0)); len(m) != 1 || m[0].Method != fbpp {
		t.Errorf("selected %v", m)
	}
	for _, tc := range []struct{ args, want string }{
		{"", ""}, {"--quick", "quick"},
		{"--memory=1024", "1024MiB"}, {"--quick --memory=1024", "quick/1024MiB"},
	} {
		o, err := parse(strings.Fields(tc.args), io.Discard)
		if err != nil || o.folder() != tc.want {
			t.Errorf("%q goes to %q, %v, want %q", tc.args, o.folder(), err, tc.want)
		}
	}
	o.quick = true
	if m := o.matrix(mustSizes(t, 64<<10, 0)); len(m) != 1 || m[0].rounds != 1 {
		t.Errorf("selected %v", m)
	}
}
