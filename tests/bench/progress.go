// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"iter"
	"time"
)

// progress tells what runs, what came of it, and how long the rest takes.
type progress struct {
	out     io.Writer
	pending []run
	total   int

	began time.Time     // of the run that goes on
	spent time.Duration // on the runs that were done here
	ran   int           // how many these are
}

// newProgress leaves out what the results have already.
func newProgress(out io.Writer, runs []run, have *results) *progress {
	p := &progress{out: out, total: len(runs)}
	for _, r := range runs {
		if !have.done(r) {
			p.pending = append(p.pending, r)
		}
	}
	if n := p.total - len(p.pending); n > 0 {
		fmt.Fprintf(out, "%d of %d migrations are done already.\n", n, p.total)
	}
	return p
}

// left yields each run that is to be done, and announces it.
func (p *progress) left() iter.Seq[run] {
	return func(yield func(run) bool) {
		first := p.total - len(p.pending)
		for i, r := range p.pending {
			fmt.Fprintf(p.out, "[%d/%d] %s, round %d%s\n", first+i+1, p.total, r.benchCase, r.Round, p.remaining(len(p.pending)-i))
			p.began = time.Now()
			if !yield(r) {
				return
			}
		}
	}
}

// remaining estimates how long n more runs take, from those so far.
func (p *progress) remaining(n int) string {
	if p.ran == 0 {
		return ""
	}
	d := p.spent / time.Duration(p.ran) * time.Duration(n)
	return fmt.Sprintf(" (about %v left)", max(d.Round(time.Minute), time.Minute))
}

// say tells which part of the run begins.
func (p *progress) say(what string) {
	fmt.Fprintf(p.out, "    %4.0f s  %s\n", time.Since(p.began).Seconds(), what)
}

// done tells what came of the run.
func (p *progress) done(r *record) {
	took := time.Since(p.began)
	p.spent, p.ran = p.spent+took, p.ran+1
	if r.failed() {
		fmt.Fprintf(p.out, "    %4.0f s  FAILED %s\n", took.Seconds(), r.reason())
		return
	}
	fmt.Fprintf(p.out, "    %4.0f s  %d MiB in %d ms, downtime %d ms\n", took.Seconds(), r.Transferred>>20, r.TotalMS, r.DowntimeMS)
}
