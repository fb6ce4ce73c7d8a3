// SPDX-License-Identifier: Apache-2.0

package model

import (
	"os/exec"
	"strings"
	"testing"
)

func TestOurOrderLosesNoWriteAndEachRejectedOneDoes(t *testing.T) {
	if _, err := exec.LookPath("spin"); err != nil {
		t.Fatal(ErrNoSpin)
	}
	for _, v := range Variants() {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			r, err := Check(t.Context(), v, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %d states", v.About, r.States)
			switch {
			case v.Loses && len(r.Trace) == 0:
				t.Error("no write is lost: the model does not show why this order is rejected")
			case !v.Loses && len(r.Trace) > 0:
				t.Errorf("a write is lost:\n%s", strings.Join(r.Trace, "\n"))
			case !v.Loses && len(r.Unreached) > 0:
				t.Errorf("parts of the model are never reached:\n%s", strings.Join(r.Unreached, "\n"))
			}
		})
	}
}

func TestOutputOfPan(t *testing.T) {
	const good = "State-vector 72 byte, depth reached 9, errors: 0\n  12 states, stored\n" +
		"unreached in proctype cpu\n\tfbpp.pml:28, state 44, \"-end-\"\n"
	for _, tc := range []struct {
		name, out string
		failed    bool
		bad       string // part of the error
	}{
		{"a complete search", good, false, ""},
		{"an error", strings.Replace(good, "errors: 0", "errors: 1", 1), true, ""},
		{"a search that was cut", "error: max search depth too small\n" + good, false, "incomplete"},
		{"nothing", "", false, "no result"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, failed, err := parse(tc.out)
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Fatalf("error %v, want one about %q", err, tc.bad)
				}
				return
			}
			if err != nil || failed != tc.failed || r.States != 12 || len(r.Unreached) != 0 {
				t.Fatalf("%+v, %v, %v", r, failed, err)
			}
		})
	}
}

func TestADeadlockIsNotReportedAsALostWrite(t *testing.T) {
	if steps, err := trace("sync: bmap is 11\nspin: trail ends after 7 steps\n"); err == nil {
		t.Fatalf("taken for a lost write: %q", steps)
	}
}
