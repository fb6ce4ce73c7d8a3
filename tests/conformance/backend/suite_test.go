// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"context"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// results runs the rules that the patterns select.
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

// expect fails unless every rule was kept, or does not apply for a reason that
// names one of the words in skips.
func expect(t *testing.T, c backend.Config, skips ...string) {
	t.Helper()
	for id, r := range results(t, c) {
		t.Logf("%-13s %-5v %6.1fms %s", id, r.Outcome, float64(r.Elapsed.Microseconds())/1000, r.Detail)
		if r.Outcome == report.Pass || r.Outcome == report.Skip && mentions(r.Detail, skips) {
			continue
		}
		t.Errorf("%s: %v: %s\n%s", id, r.Outcome, r.Detail, strings.Join(r.Notes, "\n"))
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
	expect(t, backend.Config{SocketPath: serve(t, &newEcho().Device), Profile: backend.Echo()},
		"INBAND", "ACCESS_PLATFORM", "PAGEFAULT", "DEVICE_STATE", "EVENT_IDX", "INFLIGHT", "own process", "read-only", "inflight")
}
