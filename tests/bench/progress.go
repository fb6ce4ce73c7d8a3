// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"time"
)

// progress prints the current run, its result, and the estimated time of the rest.
type progress struct {
	out     io.Writer
	pending []run
	total   int
	known   []record  // runs that have their figures
	began   time.Time // when the run that goes on began
}

// newProgress returns the progress of the runs that the results do not have yet.
func newProgress(out io.Writer, runs []run, have *results) *progress {
	p := &progress{out: out, total: len(runs)}
	for _, r := range have.Records {
		if !r.failed() {
			p.known = append(p.known, r)
		}
	}
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
			fmt.Fprintf(p.out, "[%d/%d] %s, round %d%s\n",
				first+i+1, p.total, r.benchCase, r.Round, p.remaining(p.pending[i:]))
			p.began = time.Now()
			if !yield(r) {
				return
			}
		}
	}
}

// remaining estimates how long the runs take from those that were made.
func (p *progress) remaining(runs []run) string {
	if len(p.known) == 0 {
		return ""
	}
	var d time.Duration
	for _, r := range runs {
		d += p.expect(r.benchCase)
	}
	return fmt.Sprintf(" (about %v left)", max(d.Round(time.Minute), time.Minute))
}

// expect estimates how long a run takes: as long as the last run of its case. If there is
// none, as long as a run with the same load and method on another link, scaled to this
// link. If there is none either, as long as the average run.
func (p *progress) expect(c benchCase) time.Duration {
	var all, alike time.Duration
	for _, r := range slices.Backward(p.known) {
		took := time.Duration(r.TookMS) * time.Millisecond
		all += took
		switch {
		case r.benchCase == c:
			return took
		case alike == 0 && r.Load == c.Load && r.Method == c.Method && r.Link == unlimited:
			alike = took
			if c.Link != unlimited {
				slow := time.Duration(float64(r.Transferred) / float64(c.Link) * float64(time.Second))
				alike += max(slow-time.Duration(r.TotalMS)*time.Millisecond, 0)
			}
		}
	}
	if alike != 0 {
		return alike
	}
	return all / time.Duration(len(p.known))
}

// say tells which part of the run begins.
func (p *progress) say(what string) {
	fmt.Fprintf(p.out, "    %4.0f s  %s\n", time.Since(p.began).Seconds(), what)
}

// done tells what came of the run.
func (p *progress) done(r *record) {
	if r.failed() {
		fmt.Fprintf(p.out, "    %4.0f s  FAILED %s\n", time.Since(p.began).Seconds(), r.reason())
		return
	}
	p.known = append(p.known, *r)
	p.say(fmt.Sprintf("%d MiB in %d ms, downtime %d ms", r.Transferred>>20, r.TotalMS, r.DowntimeMS))
}
