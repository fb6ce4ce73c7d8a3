// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// check makes a check whose rule is called id.
func check(id string, f func(*T)) Check {
	return Check{Rule: Rule{ID: id, Text: "Text of " + id + ".", Source: "a source"}, Func: f}
}

// mixed is a suite with each kind of result.
func mixed() *Checks {
	advice := check("X-FAIL-2", func(t *T) { t.Failf("not so good") })
	advice.Advice = true
	return &Checks{Bound: time.Minute, List: []Check{
		check("X-PASS-1", func(*T) {}),
		check("X-FAIL-1", func(t *T) { t.Notef("a %q", "note"); t.Failf("saw %d # twice", 7) }),
		advice,
		check("X-SKIP-1", func(t *T) { t.Skipf("backend does not\noffer it") }),
		check("X-ERR-1", func(t *T) { t.Errorf("nobody listens") }),
	}}
}

func run(
	t *testing.T, s Suite, patterns []string, newSink func(*strings.Builder) Sink,
) (string, Summary) {
	t.Helper()
	var out strings.Builder
	sum, err := Run(context.Background(), "mixed", s, patterns, newSink(&out))
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), sum
}

func TestTAP(t *testing.T) {
	out, sum := run(t, mixed(), nil, func(b *strings.Builder) Sink { return NewTAP(b) })
	want := `TAP version 14
1..5 # mixed
ok 1 - X-PASS-1 Text of X-PASS-1.
not ok 2 - X-FAIL-1 Text of X-FAIL-1.
  ---
  outcome: fail
  seen: "saw 7 # twice"
  source: "a source"
  notes:
    - "a \"note\""
  ...
not ok 3 - X-FAIL-2 Text of X-FAIL-2. # TODO advice
  ---
  outcome: fail
  seen: "not so good"
  source: "a source"
  ...
ok 4 - X-SKIP-1 Text of X-SKIP-1. # SKIP backend does not offer it
not ok 5 - X-ERR-1 Text of X-ERR-1.
  ---
  outcome: error
  seen: "nobody listens"
  source: "a source"
  ...
# 1 passed, 1 failed, 1 not applicable, 1 advised, 1 not checked
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	if sum.ExitStatus() != ExitBroken {
		t.Errorf("exit status %d", sum.ExitStatus())
	}
}

func TestDirectivesInATextAreEscaped(t *testing.T) {
	s := &Checks{Bound: time.Minute, List: []Check{check("X-1", func(*T) {})}}
	s.List[0].Text = `uses # SKIP and \ in it`
	out, _ := run(t, s, nil, func(b *strings.Builder) Sink { return NewTAP(b) })
	if want := `ok 1 - X-1 uses \# SKIP and \\ in it` + "\n"; !strings.Contains(out, want) {
		t.Errorf("%q is not in %q", want, out)
	}
}

func TestJSON(t *testing.T) {
	out, _ := run(t, mixed(), nil, func(b *strings.Builder) Sink { return NewJSON(b) })
	type line struct {
		Suite, Rule, Text, Source, Outcome, Detail string
		Advice                                     bool
		Notes                                      []string
		Summary                                    *Summary
	}
	var got []line
	for l := range strings.Lines(out) {
		var v line
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	text := func(id string) line {
		return line{Suite: "mixed", Rule: id, Text: "Text of " + id + ".", Source: "a source"}
	}
	want := []line{
		text("X-PASS-1"), text("X-FAIL-1"), text("X-FAIL-2"), text("X-SKIP-1"), text("X-ERR-1"),
		{Suite: "mixed", Summary: &Summary{Passed: 1, Failed: 1, Advised: 1, Skipped: 1, Errors: 1}},
	}
	want[0].Outcome = "pass"
	want[1].Outcome, want[1].Detail, want[1].Notes = "fail", "saw 7 # twice", []string{`a "note"`}
	want[2].Outcome, want[2].Detail, want[2].Advice = "fail", "not so good", true
	want[3].Outcome, want[3].Detail = "skip", "backend does not\noffer it"
	want[4].Outcome, want[4].Detail = "error", "nobody listens"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestExitStatuses(t *testing.T) {
	for name, c := range map[string]struct {
		sum  Summary
		want int
	}{
		"all kept":                           {Summary{Passed: 3, Skipped: 1}, ExitKept},
		"advice is not followed":             {Summary{Passed: 3, Advised: 1}, ExitKept},
		"a rule is broken":                   {Summary{Passed: 3, Failed: 1}, ExitBroken},
		"a rule is broken, one is unchecked": {Summary{Failed: 1, Errors: 1}, ExitBroken},
		"one is unchecked":                   {Summary{Passed: 3, Errors: 1}, ExitError},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.sum.ExitStatus(); got != c.want {
				t.Errorf("exit status %d, want %d", got, c.want)
			}
		})
	}
}

func TestSelect(t *testing.T) {
	for name, c := range map[string]struct {
		patterns []string
		want     []string
		fails    bool
	}{
		"no pattern is all rules": {nil,
			[]string{"X-PASS-1", "X-FAIL-1", "X-FAIL-2", "X-SKIP-1", "X-ERR-1"}, false},
		"rules come in their own order": {[]string{"X-SKIP-1", "X-FAIL-*"},
			[]string{"X-FAIL-1", "X-FAIL-2", "X-SKIP-1"}, false},
		"a pattern that matches nothing":   {[]string{"X-PASS-1", "Y-*"}, nil, true},
		"a pattern that is none":           {[]string{"X-["}, nil, true},
		"two patterns for the same rule":   {[]string{"X-PASS-1", "X-P*"}, []string{"X-PASS-1"}, false},
		"a part of a name is not the name": {[]string{"X-PASS"}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := Select(mixed().Rules(), c.patterns...)
			if (err != nil) != c.fails {
				t.Fatal(err)
			}
			var got []string
			for _, r := range rules {
				got = append(got, r.ID)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestACheckThatHangsIsGivenUp(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // the bound is over at once
	r := check("X-1", func(*T) { <-block }).Run(ctx, time.Minute)
	if r.Outcome != Fail || r.Detail == "" {
		t.Errorf("got %v %q", r.Outcome, r.Detail)
	}
}

func TestTheBoundEndsTheContextOfACheck(t *testing.T) {
	ends := check("X-1", func(t *T) { <-t.Context().Done(); t.Skipf("ended") })
	r := ends.Run(context.Background(), time.Millisecond)
	if r.Outcome != Skip {
		t.Errorf("got %v %q", r.Outcome, r.Detail)
	}
}

func TestAPanicIsAnErrorOfTheSuite(t *testing.T) {
	r := check("X-1", func(*T) { panic("oops") }).Run(context.Background(), time.Minute)
	if r.Outcome != Error || !strings.Contains(r.Detail, "oops") || len(r.Notes) == 0 {
		t.Errorf("got %v %q %q", r.Outcome, r.Detail, r.Notes)
	}
}

func TestCleanupsRunInReverseAfterAFailure(t *testing.T) {
	var order []int
	check("X-1", func(t *T) {
		t.Cleanup(func() { order = append(order, 1) })
		t.Cleanup(func() { order = append(order, 2); t.Cleanup(func() { order = append(order, 3) }) })
		t.Failf("broken")
	}).Run(context.Background(), time.Minute)
	if diff := cmp.Diff([]int{2, 3, 1}, order); diff != "" {
		t.Error(diff)
	}
}

func TestTheFirstOutcomeIsKept(t *testing.T) {
	r := check("X-1", func(t *T) {
		t.Cleanup(func() {
			defer func() { _ = recover() }()
			t.set(Pass, "late")
		})
		t.Failf("first")
	}).Run(context.Background(), time.Minute)
	if r.Outcome != Fail || r.Detail != "first" {
		t.Errorf("got %v %q", r.Outcome, r.Detail)
	}
}

func TestASuiteThatIsEndedSaysSoOfEachRule(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Checks{Bound: time.Minute, List: []Check{
		check("X-1", func(*T) { cancel() }),
		check("X-2", func(*T) {}),
	}}
	var out strings.Builder
	sum, err := Run(ctx, "mixed", s, nil, NewTAP(&out))
	if !errors.Is(err, context.Canceled) || sum.Passed != 1 || sum.Errors != 1 {
		t.Errorf("got %v, %v", sum, err)
	}
	if !strings.Contains(out.String(), "Bail out! ") {
		t.Errorf("no bail out in\n%s", out.String())
	}
}

// failing is a writer that fails after n bytes.
type failing struct{ n int }

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestResultsThatCannotBeWrittenAreAnError(t *testing.T) {
	for _, n := range []int{0, 40, 300} {
		if _, err := Run(context.Background(), "mixed", mixed(), nil, NewTAP(&failing{n})); err == nil {
			t.Errorf("a disk that is full after %d bytes was no error", n)
		}
	}
}
