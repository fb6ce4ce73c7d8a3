// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"fmt"
)

// Suite checks rules against one peer.
type Suite interface {
	// Rules returns all rules, always in the same order.
	Rules() []Rule
	// Run checks the selected rules, which are in the order of Rules. It calls add with
	// one result for each of them, also when ctx ends. It returns an error if the suite
	// could not start or not finish.
	Run(ctx context.Context, selected []Rule, add func(Result)) error
}

// Run runs a suite over the rules that the patterns select, and sends the results to
// all sinks. name is the name of the suite in the output. The error says why the suite could
// not finish. The summary counts the results until then.
func Run(
	ctx context.Context, name string, s Suite, patterns []string, sinks ...Sink,
) (Summary, error) {
	selected, err := Select(s.Rules(), patterns...)
	if err != nil {
		return Summary{}, err
	}
	all := tee(sinks)
	if err := all.Begin(name, len(selected)); err != nil {
		return Summary{}, err
	}
	var sum Summary
	var sinkErr error
	err = s.Run(ctx, selected, func(r Result) {
		sum.Add(r)
		if sinkErr == nil {
			sinkErr = all.Add(r)
		}
	})
	if err == nil {
		err = sinkErr
	}
	if endErr := all.End(sum, err); err == nil {
		err = endErr
	}
	if err != nil {
		return sum, fmt.Errorf("run %s suite: %w", name, err)
	}
	return sum, nil
}

// tee is a Sink that passes everything on to several sinks.
type tee []Sink

func (t tee) Begin(suite string, n int) error {
	return t.each(func(s Sink) error { return s.Begin(suite, n) })
}

func (t tee) Add(r Result) error {
	return t.each(func(s Sink) error { return s.Add(r) })
}

func (t tee) End(sum Summary, err error) error {
	return t.each(func(s Sink) error { return s.End(sum, err) })
}

func (t tee) each(f func(Sink) error) error {
	for _, s := range t {
		if err := f(s); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}
