// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

func TestPlanFitsTheHost(t *testing.T) {
	for name, tc := range map[string]struct{ hostMiB, guestMiB int }{
		"a large host":                  {64 << 10, 8 << 10},
		"just enough":                   {20 << 10, 8 << 10},
		"half of it":                    {10 << 10, 4 << 10},
		"rounded to a quarter of a GiB": {9999, 3840},
		"too little":                    {2000, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := planFor(tc.hostMiB, 0)
			if (err == nil) != (tc.guestMiB != 0) || err == nil && p.guestMiB != tc.guestMiB {
				t.Fatalf("got %+v, %v, want a guest of %d MiB", p, err, tc.guestMiB)
			}
			if small := strings.Contains(p.String(), "smaller"); err == nil && small != (tc.guestMiB < fullGuest) {
				t.Errorf("it says %q", p)
			}
		})
	}
}

// example returns the results of two made-up migrations.
func example(t *testing.T, mismatches uint64) *results {
	t.Helper()
	figures := func(normal, zero int64, hints *vm.Hints) *vm.Migration {
		m := &vm.Migration{TotalTime: 10, SetupTime: 2, Downtime: 1, Hints: hints}
		m.RAM.Total = 1000 * memory.PageSize
		m.RAM.Normal, m.RAM.Duplicate = normal, zero
		m.RAM.Transferred = normal*vm.PageCost + zero*vm.ZeroPageCost + 500
		return m
	}
	sound := integrity{CountBefore: 1, CountAfter: 3, VerifiedPages: 2}
	damaged := sound
	damaged.Mismatches = mismatches
	info := memory.Info{Buddy: 800}
	r := &results{accel: "tcg", plan: plan{guestMiB: 1024}, Runs: []outcome{
		*newOutcome(stock, "6.12", figures(900, 100, &vm.Hints{Status: "disabled"}), info, &sound),
		*newOutcome(fbpp, "6.12", figures(152, 50, &vm.Hints{Status: "ok", Generation: 1, Skipped: 798, Exchange: 10, Walk: 4}), info, &damaged),
	}}
	r.conclude()
	return r
}

func TestResults(t *testing.T) {
	r := example(t, 0)
	if want := int64(150*vm.PageCost + 50*vm.ZeroPageCost + 500); r.FloorBytes != want {
		t.Errorf("the floor is %d, want %d", r.FloorBytes, want)
	}
	if r.Runs[0].Exchange != nil || r.Runs[1].Exchange == nil || r.Runs[1].Exchange.Wait != 6 {
		t.Errorf("exchanges %+v, %+v", r.Runs[0].Exchange, r.Runs[1].Exchange)
	}
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
	if err := example(t, 1).verdict(); err == nil {
		t.Error("a damaged guest is a success")
	}
	far := example(t, 0)
	far.AboveFloor = 0.06
	if err := far.verdict(); err == nil {
		t.Error("6 % above the floor are a success")
	}
	late := example(t, 0)
	late.Runs[1].HintStatus = "timeout"
	if err := late.verdict(); err == nil {
		t.Error("a migration without hints is a success")
	}
}

func TestResultsAsJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "build", "demo.json")
	if err := example(t, 0).write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		FloorBytes *int64 `json:"floor_bytes"`
		Runs       []struct {
			Method      string `json:"method"`
			Transferred int64  `json:"transferred_bytes"`
			SetupMS     int64  `json:"setup_ms"`
			TotalMS     int64  `json:"total_ms"`
			DowntimeMS  int64  `json:"downtime_ms"`
			Skipped     int64  `json:"skipped_pages"`
			Exchange    map[string]int64
		} `json:"runs"`
		Integrity *struct{ Mismatches int64 } `json:"integrity"`
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.FloorBytes == nil || got.Integrity == nil || len(got.Runs) != 2 || got.Runs[1].Skipped != 798 ||
		got.Runs[0].SetupMS != 2 || got.Runs[0].TotalMS != 10 || got.Runs[0].DowntimeMS != 1 {
		t.Fatalf("got %+v from %s", got, text)
	}
}

func TestScreenIsPlainWithoutATerminal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	s := newScreen(f)
	s.step("one")
	s.progress("%d %%", 5) // too soon to be worth a line
	s.done("result")
	s.step("two")
	example(t, 0).print(s)
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(text), "\r\x1b") || strings.Contains(string(text), "5 %") {
		t.Errorf("got %q", text)
	}
	for _, want := range []string{"  … one\n  ✓ one: result (", "  ✓ two (", "hints   transferred", "5.9×", "0 do not match"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
}

func TestTable(t *testing.T) {
	got := table([][]string{{"name", "n"}, {"×", "10"}})
	if diff := cmp.Diff([]string{"name    n", "─────────", "×      10"}, got); diff != "" {
		t.Fatal(diff)
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q", n, got)
		}
	}
	for n, want := range map[int64]string{512: "0.5 KiB", 3 << 20: "3.0 MiB", 3 << 29: "1.50 GiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q", n, got)
		}
	}
}
