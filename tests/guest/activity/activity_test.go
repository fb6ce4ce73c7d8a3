// SPDX-License-Identifier: Apache-2.0

package activity

import (
	"os"
	"strings"
	"testing"
)

func TestReadOwnActivity(t *testing.T) {
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	a, err := Read(strings.TrimSpace(string(name)))
	if err != nil || a.Threads == 0 {
		t.Fatalf("got %+v, %v", a, err)
	}
	if _, err := Read("no such program"); err == nil {
		t.Fatal("a program that does not run was found")
	}
}

func TestParseTicks(t *testing.T) {
	const stat = "12 (a) b) (c) S 1 1 1 0 -1 0 0 0 0 0 30 12 0 0 20"
	if got, err := parseTicks(stat); err != nil || got != 42 {
		t.Fatalf("got %d, %v, want 42", got, err)
	}
	for _, bad := range []string{"", "12", "12 (a) S 1", "12 (a) S 1 1 1 0 -1 0 0 0 0 0 x 12"} {
		if _, err := parseTicks(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func TestParseSwitches(t *testing.T) {
	const status = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t7\n"
	if got, err := parseSwitches(status); err != nil || got != 157 {
		t.Fatalf("got %d, %v, want 157", got, err)
	}
	for _, bad := range []string{
		"",
		"voluntary_ctxt_switches:\t1\n",
		"voluntary_ctxt_switches:\tx\nnonvoluntary_ctxt_switches:\t7\n",
	} {
		if _, err := parseSwitches(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func TestProcessThatHasEndedRunsNoMore(t *testing.T) {
	for stat, want := range map[string]bool{
		"7 (exe) S 1 7": false, "7 (exe) Z 1 7": true, "7 (a) Z) R 1 7": false,
		"7 (a) R) Z 1": true, "": false,
	} {
		if ended(stat) != want {
			t.Errorf("%q: %v", stat, !want)
		}
	}
}
