// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// results checks the rules that the patterns select, and returns the results by rule.
func results(t testing.TB, c backend.Config, patterns ...string) map[string]report.Result {
	t.Helper()
	s := backend.NewSuite(c)
	selected, err := report.Select(s.Rules(), patterns...)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]report.Result)
	err = s.Run(context.Background(), selected, func(r report.Result) { found[r.ID] = r })
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// long is for a backend that keeps a rule, which shows as soon as it can.
const long = 10 * time.Second

// patienceFor is how long to wait for a backend that should have this outcome: one that breaks a
// rule may show it by what never comes.
func patienceFor(want report.Outcome) time.Duration {
	if want == report.Pass {
		return long
	}
	return time.Second
}

// expect fails unless each rule was kept or skipped. The reason for a skip must contain one
// of the words in skips. The rules in known must be broken.
func expect(t *testing.T, c backend.Config, known []string, skips ...string) {
	t.Helper()
	for id, r := range results(t, c) {
		ok := r.Outcome == report.Pass || r.Outcome == report.Skip && mentions(r.Detail, skips)
		if slices.Contains(known, id) {
			ok = r.Outcome == report.Fail
		}
		if !ok {
			t.Errorf("%s: %v: %s\n%s", id, r.Outcome, r.Detail, strings.Join(r.Notes, "\n"))
		}
	}
}

func mentions(text string, words []string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

func TestEchoDeviceKeepsAllRules(t *testing.T) {
	expect(t, backend.Config{SocketPath: serve(t, &newEcho().Device), Profile: backend.Echo()}, nil,
		"userfaultfd", "offers PAGEFAULT", "own process", "read-only")
}
