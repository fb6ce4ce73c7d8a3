// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"fmt"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// traceLines is how many events before a breach are shown with it.
const traceLines = 24

// ledger keeps the findings about each rule, and the newest events. newLedger makes
// one.
type ledger struct {
	now      func() time.Time
	began    time.Time
	scenario string
	findings map[string]*finding
	breaches int
	trace    []string
}

// finding is what was found out about one rule.
type finding struct {
	occasions int      // how often the driver could have broken the rule
	breaches  int      // how often it did
	first     string   // describes the first breach
	notes     []string // the events before the first breach
	skipped   string   // why there was no occasion
}

func newLedger(now func() time.Time) ledger {
	return ledger{now: now, began: now(), findings: make(map[string]*finding)}
}

func (l *ledger) finding(rule string) *finding {
	f := l.findings[rule]
	if f == nil {
		f = &finding{}
		l.findings[rule] = f
	}
	return f
}

// note adds an event to the trace. The oldest event makes room for it.
func (l *ledger) note(format string, args ...any) {
	if len(l.trace) == traceLines {
		l.trace = slices.Delete(l.trace, 0, 1)
	}
	stamp := fmt.Sprintf("%8.3fs ", l.now().Sub(l.began).Seconds())
	l.trace = append(l.trace, stamp+fmt.Sprintf(format, args...))
}

// saw counts an occasion to break rules.
func (l *ledger) saw(rules ...string) {
	for _, r := range rules {
		l.finding(r).occasions++
	}
}

// broke records that a rule was broken. The result shows the first breach.
func (l *ledger) broke(rule, format string, args ...any) {
	f := l.finding(rule)
	l.breaches++
	if f.breaches++; f.breaches > 1 {
		return
	}
	f.first = fmt.Sprintf(format, args...)
	if l.scenario != "" {
		f.first = fmt.Sprintf("scenario %q: %s", l.scenario, f.first)
	}
	l.note("%s: %s", rule, f.first)
	f.notes = slices.Clone(l.trace)
}

// advise records that advice was not followed. It does not count among the breaches
// because of which a request is no longer judged.
func (l *ledger) advise(rule, format string, args ...any) {
	l.broke(rule, format, args...)
	l.breaches--
}

// skip records why there was no occasion to break the rules. The first reason is kept.
func (l *ledger) skip(reason string, rules ...string) {
	for _, r := range rules {
		if f := l.finding(r); f.skipped == "" {
			f.skipped = reason
		}
	}
}

// result returns the result of a rule. missed is the reason for a skip where no other
// is known.
func (l *ledger) result(r report.Rule, missed string) report.Result {
	f := l.finding(r.ID)
	result := report.Result{Rule: r}
	switch {
	case f.breaches > 0:
		result.Outcome, result.Detail, result.Notes = report.Fail, f.first, f.notes
		if f.breaches > 1 {
			result.Detail += fmt.Sprintf(" (the first of %d times)", f.breaches)
		}
	case f.occasions > 0:
		result.Detail = fmt.Sprintf("%d occasions", f.occasions)
	case f.skipped != "":
		result.Outcome, result.Detail = report.Skip, f.skipped
	default:
		result.Outcome, result.Detail = report.Skip, missed
	}
	return result
}
