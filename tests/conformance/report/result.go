// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"time"
)

// Outcome says whether a rule was kept.
type Outcome int

// Outcomes.
const (
	// Pass: the peer kept the rule.
	Pass Outcome = iota
	// Fail: the peer broke the rule.
	Fail
	// Skip: the rule does not apply to this peer, or there was no occasion to break it.
	Skip
	// Error: the suite could not check the rule. The peer is not the reason.
	Error
)

// String implements fmt.Stringer.
func (o Outcome) String() string {
	switch o {
	case Pass:
		return "pass"
	case Fail:
		return "fail"
	case Skip:
		return "skip"
	case Error:
		return "error"
	}
	return fmt.Sprintf("outcome %d", int(o))
}

// MarshalText implements encoding.TextMarshaler.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Result is what a suite found out about one rule.
type Result struct {
	Rule
	Outcome Outcome
	// Detail says what was seen, why the rule does not apply, or why it could
	// not be checked. A pass may have none.
	Detail string
	// Notes are lines that help to understand the detail, oldest first.
	Notes []string
	// Elapsed is the time that the check took; 0 if it was not measured.
	Elapsed time.Duration
}

// Sink receives the results of a suite, for example to print them.
type Sink interface {
	// Begin is called first, with the number of results that follow.
	Begin(suite string, n int) error
	// Add receives the next result.
	Add(Result) error
	// End is called last. err says why the suite ended early; it is nil if it did not.
	End(s Summary, err error) error
}

// Summary counts results.
type Summary struct {
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Advised int `json:"advised"` // advice that the peer does not follow
	Skipped int `json:"skipped"`
	Errors  int `json:"errors"`
}

// Add counts one result.
func (s *Summary) Add(r Result) {
	switch {
	case r.Outcome == Pass:
		s.Passed++
	case r.Outcome == Skip:
		s.Skipped++
	case r.Outcome == Error:
		s.Errors++
	case r.Advice:
		s.Advised++
	default:
		s.Failed++
	}
}

// String implements fmt.Stringer.
func (s Summary) String() string {
	text := fmt.Sprintf("%d passed, %d failed, %d not applicable", s.Passed, s.Failed, s.Skipped)
	if s.Advised > 0 {
		text += fmt.Sprintf(", %d advised", s.Advised)
	}
	if s.Errors > 0 {
		text += fmt.Sprintf(", %d not checked", s.Errors)
	}
	return text
}

// Exit statuses of a program that ran a suite.
const (
	ExitKept   = 0 // no rule was broken; advice may not have been followed
	ExitBroken = 1
	ExitError  = 2 // the suite, or one of its checks, could not run
)

// ExitStatus returns the status that a program ends with.
func (s Summary) ExitStatus() int {
	switch {
	case s.Failed > 0:
		return ExitBroken
	case s.Errors > 0:
		return ExitError
	}
	return ExitKept
}
