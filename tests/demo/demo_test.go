// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

func TestPlanFitsTheHost(t *testing.T) {
	for _, tc := range []struct {
		name                         string
		hostMiB, askedMiB, wantedMiB int // wantedMiB: 0 for an error
		small                        bool
	}{
		{"a large host", 64 << 10, 0, 8 << 10, false},
		{"a small one", 10 << 10, 0, 4 << 10, true},
		{"a small guest, as was asked for", 64 << 10, 2 << 10, 2 << 10, false},
		{"more than the host has", 10 << 10, 6 << 10, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := planFor(tc.hostMiB, tc.askedMiB)
			if (err == nil) != (tc.wantedMiB != 0) || p.guestMiB != tc.wantedMiB {
				t.Fatalf("got %+v, %v, want a guest of %d MiB", p, err, tc.wantedMiB)
			}
			if small := strings.Contains(p.String(), "smaller"); err == nil && small != tc.small {
				t.Errorf("it says %q", p)
			}
		})
	}
}

func TestWrongCommandLines(t *testing.T) {
	for name, args := range map[string][]string{
		"a kernel that nobody has": {"--kernel", "nonsense"},
		"no kernel":                {"--kernel="},
		"memory without a number":  {"--memory=much"},
		"a stray word":             {"fast"},
		"an unknown flag":          {"--guests=3"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := run(t.Context(), args, &out); !errors.As(err, new(cli.UsageError)) || out.Len() > 0 {
				t.Fatalf("got %v and %q, want a usage error", err, out.String())
			}
		})
	}
	for _, memory := range []string{"--memory=-1", "--memory=1000000000"} {
		if err := run(t.Context(), []string{memory}, &strings.Builder{}); err == nil {
			t.Errorf("%s was accepted", memory)
		}
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
		*newOutcome(fbpp, "6.12", figures(152, 50, &vm.Hints{
			Status: "ok", Generation: 1, Skipped: 798, Exchange: 10,
			Phases: []vm.HintPhase{{Name: source.PhaseWalk, Time: 4}},
		}), info, &damaged),
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
	if got.FloorBytes == nil || got.Integrity == nil ||
		len(got.Runs) != 2 || got.Runs[1].Skipped != 798 ||
		got.Runs[0].SetupMS != 2 || got.Runs[0].TotalMS != 10 || got.Runs[0].DowntimeMS != 1 {
		t.Fatalf("got %+v from %s", got, text)
	}
}

func TestScreenIsPlainWithoutATerminal(t *testing.T) {
	var out strings.Builder
	s := newScreen(&out, false)
	s.step("one")
	s.progress("%d %%", 5) // too soon to be worth a line
	s.done("result")
	s.step("two")
	example(t, 0).print(s)
	text := out.String()
	if strings.ContainsAny(text, "\r\x1b") || strings.Contains(text, "5 %") {
		t.Errorf("got %q", text)
	}
	for _, want := range []string{
		"  … one\n  ✓ one: result (", "  ✓ two (", "hints   transferred", "5.9×", "0 do not match",
	} {
		if !strings.Contains(text, want) {
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
