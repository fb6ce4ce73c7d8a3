// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestReleaseHidesWhoBuiltIt(t *testing.T) {
	for from, want := range map[string]string{
		"Linux 6.12.43+deb13-cloud-amd64":      "6.12.43-deb13-cloud-amd64",
		"6.1.0-13-amd64":                       "6.1.0-amd64",
		"5.14.0-503.el9_5.x86_64":              "5.14.0-el9_5-x86_64",
		"6.8.0-rc3-acme-build@ci7.example.com": "6.8.0-rc3",
		"7.3-rt2-josefine":                     "7.3-rt2",
		"of-my-own":                            "unknown",
		"":                                     "unknown",
	} {
		if got := Release(from); got != want {
			t.Errorf("%q became %q, want %q", from, got, want)
		}
	}
}

// full is a report with some migrations.
func full() *Report {
	return &Report{
		Version: Version, Host: Host{CPU: "A <fast> one", CPUs: 4}, VM: VM{MemoryBytes: 8 << 30},
		QEMU: QEMU{Version: "10.0.13", Accelerator: "kvm", DirtyTracking: "dirty-ring"},
		Measured: []Migration{
			{Method: Stock, Result: "completed", TransferredBytes: 900 << 20, TotalMS: 3000},
			{Method: FBPP, Result: "completed", TransferredBytes: 90 << 20, TotalMS: 200, Hints: "ok"},
			{Method: FBPP, Result: "too-slow", TransferredBytes: 1},
			{Method: FBPP, Result: "completed", TransferredBytes: 95 << 20, TotalMS: 250, Hints: "ok"},
			{Method: Stock, Gbit: 1, Result: "failed"},
		},
		History: []Past{{Result: "completed", Hints: "no-driver"}},
	}
}

func TestLinesAreMediansOfWhatCompleted(t *testing.T) {
	lines := full().Lines()
	if len(lines) != 3 || lines[1].Method != FBPP || lines[1].Tried != 3 || lines[1].Done != 2 ||
		lines[1].Transferred != 90<<20 || lines[2].Gbit != 1 || lines[2].Done != 0 {
		t.Errorf("got %+v", lines)
	}
	const row = "| A <fast> one | KVM, dirty-ring | Linux  | 8 GiB | 900.0 MiB, 3.00 s | – " +
		"| 90.0 MiB, 0.20 s | # |"
	if got := full().Row(); got != row {
		t.Errorf("got %s", got)
	}
}

// The table in README has the columns of a row.
func TestRowsFitTheTable(t *testing.T) {
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n## Reports from the field\n")
	_, table, header := strings.Cut(table, "\n| processor |")
	head, _, _ := strings.Cut("| processor |"+table, "\n")
	if !found || !header || strings.Count(full().Row(), "|") != strings.Count(head, "|") {
		t.Errorf("the table is %q, a row %q", head, full().Row())
	}
}

func TestThePageLoadsNothing(t *testing.T) {
	page, err := full().Page()
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	for _, want := range []string{"A &lt;fast&gt; one", "no-driver", "1 Gbit/s", "2 of 3", "900.0"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	for _, foreign := range []string{"http", "src=", "href=", "url(", "<script", "@import"} {
		if strings.Contains(text, foreign) {
			t.Errorf("the page has %q", foreign)
		}
	}
}

func TestJoinTakesReportsOfTheSameMachineOnly(t *testing.T) {
	earlier, err := json.Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	now := full()
	now.VM.FreePageHint = true
	if err := now.Join(earlier); err != nil || len(now.Measured) != 10 {
		t.Errorf("joined to %d migrations: %v", len(now.Measured), err)
	}
	for name, change := range map[string]func(r *Report){
		"another host":    func(r *Report) { r.Host.CPU = "another" },
		"another QEMU":    func(r *Report) { r.QEMU.Accelerator = "tcg" },
		"another memory":  func(r *Report) { r.VM.MemoryBytes++ },
		"another version": func(r *Report) { r.Version++ },
	} {
		other := full()
		change(other)
		text, err := json.Marshal(other)
		if err != nil {
			t.Fatal(err)
		}
		if full().Join(text) == nil {
			t.Errorf("%s was joined", name)
		}
	}
	if full().Join([]byte("{")) == nil {
		t.Error("half a document was joined")
	}
}
