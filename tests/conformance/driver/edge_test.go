// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/driver"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// A driver that refuses is not asked for reports. The other rules bind it all the
// same.
func TestDriverThatRefuses(t *testing.T) {
	results, err := examine(t, "refuses", acceptedByQEMU)
	if err != nil {
		t.Fatal(err)
	}
	if broken := with(results, report.Fail); broken != nil {
		t.Errorf("%v are broken", broken)
	}
	skipped := with(results, report.Skip)
	for _, id := range []string{"FBPP-REP-1", "FBPP-REP-10", "FBPP-EV-7"} {
		if !slices.Contains(skipped, id) || !strings.Contains(results[id].Detail, "it is a test") {
			t.Errorf("%s: %v: %s", id, results[id].Outcome, results[id].Detail)
		}
	}
	for _, id := range []string{
		"FBPP-INIT-1", "FBPP-INIT-3", "FBPP-INIT-4", "FBPP-EV-5", "FBPP-EV-8", "FBPP-OP-1",
	} {
		if results[id].Outcome != report.Pass {
			t.Errorf("%s: %v: %s", id, results[id].Outcome, results[id].Detail)
		}
	}
}

// A driver may be unusual as far as the specification allows it: no rule is found
// broken.
func TestUnusualDriverBreaksNoRule(t *testing.T) {
	odd := map[fault]string{ // the value is the rule that has no occasion then
		"has large pages":                 "",
		"breaks off at its deadline":      "",
		"has spoken to an earlier device": "FBPP-INIT-1",
	}
	outcomes := examineAll(t, slices.Collect(maps.Keys(odd)), examineAsQEMU(t))
	for f, skipped := range odd {
		t.Run(string(f), func(t *testing.T) {
			end := <-outcomes[f]
			if end.err != nil {
				t.Fatal(end.err)
			}
			for id, r := range end.results {
				if (r.Outcome == report.Skip) != (id == skipped) || r.Outcome == report.Fail {
					t.Errorf("%s: %v: %s\n%s", id, r.Outcome, r.Detail, strings.Join(r.Notes, "\n"))
				}
			}
		})
	}
}

// requireNoVerdict runs the suite where there is no driver. It requires an error, and
// that no rule has passed or failed.
func requireNoVerdict(ctx context.Context, t *testing.T, c driver.Config, want string) {
	t.Helper()
	var unknown int
	err := driver.NewSuite(c).Run(ctx, driver.AllRules(), func(r report.Result) {
		if r.Outcome == report.Error {
			unknown++
		}
	})
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	if unknown != len(driver.AllRules()) {
		t.Errorf("%d rules could not be checked, want all", unknown)
	}
}

func TestDriverThatDoesNotCome(t *testing.T) {
	c := quick(t)
	c.Wait = 50 * time.Millisecond
	requireNoVerdict(t.Context(), t, c, "no driver")
}

// The suite ends although the frontend that is connected sends nothing.
func TestFrontendThatIsSilent(t *testing.T) {
	c := quick(t)
	c.Wait = 200 * time.Millisecond
	c.Progress = func(string) {
		conn, err := net.Dial("unix", c.SocketPath)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { conn.Close() })
	}
	requireNoVerdict(t.Context(), t, c, "no driver")
}

func TestSuiteThatIsEnded(t *testing.T) {
	c := quick(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	c.Progress = func(string) { cancel(errors.New("enough")) }
	requireNoVerdict(ctx, t, c, "enough")
}

func TestSuiteWithAnInvalidSocketPath(t *testing.T) {
	c := quick(t)
	c.SocketPath += "/below-a-file"
	requireNoVerdict(t.Context(), t, c, c.SocketPath)
}

// When the frontend disconnects and does not come back, the suite ends.
func TestFrontendThatLeaves(t *testing.T) {
	hurry := func(c *driver.Config) { c.Wait = 5 * time.Second }
	results, err := examine(t, "leaves", acceptedByQEMU, hurry)
	if err != nil {
		t.Fatal(err)
	}
	if broken := with(results, report.Fail); broken != nil {
		t.Errorf("%v are broken", broken)
	}
	if r := results["FBPP-INIT-4"]; r.Outcome != report.Skip || !strings.Contains(r.Detail, "lost") {
		t.Errorf("%v: %s", r.Outcome, r.Detail)
	}
}

// The suite ends whatever messages a driver sends, and reports the broken rules.
func TestDriverThatSendsRandomMessagesBreaksRules(t *testing.T) {
	for _, seed := range []string{"a", "b", "c", "d"} {
		t.Run(seed, func(t *testing.T) {
			t.Parallel()
			hurry := func(c *driver.Config) { c.Patience = 500 * time.Millisecond }
			results, err := examine(t, fault("talks nonsense "+seed), acceptedByQEMU, hurry)
			if err != nil {
				t.Fatal(err)
			}
			if broken := with(results, report.Fail); len(broken) == 0 {
				t.Error("no rule is broken")
			}
		})
	}
}
