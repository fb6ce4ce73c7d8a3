// SPDX-License-Identifier: Apache-2.0

// Command bench runs a matrix of live migrations, with different loads of the guest and
// different methods, and writes a report.
//
// Run it by "make bench" or "make bench-quick", which build what it needs. The report and
// the raw results go to build/bench; those of --quick, --memory and --growth go to folders
// below it. The same command continues an interrupted run, and --anew starts from nothing.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
)

func main() { cli.Main("bench", bench) }

// options are what the command line says.
type options struct {
	quick, anew    bool
	growth, trace  bool
	pulse          bool
	rounds, memory int
	publish        string
	redraw         string
	only           *regexp.Regexp
	series         guest.Series
}

func parse(args []string, stdout io.Writer) (options, error) {
	o := options{only: regexp.MustCompile(""), series: guest.Linux6_12}
	flags := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "run the few migrations that tell most")
	flags.BoolVar(&o.growth, "growth", false,
		"run fbpp alone, with larger guests, more CPUs, and more guests at once")
	flags.BoolVar(&o.trace, "trace", false,
		"draw where the time of fbpp's exchange with a guest goes")
	flags.BoolVar(&o.pulse, "pulse", false,
		"draw how a guest's work goes while it moves, in each 100 ms")
	flags.BoolVar(&o.anew, "anew", false, "do not continue earlier results")
	flags.IntVar(&o.rounds, "rounds", 3, "how often each migration is run, in turn with the others")
	flags.IntVar(&o.memory, "memory", 0,
		"the guest's memory in `MiB`; 0: 8192, or what this machine has room for")
	flags.Func("only",
		"run the migrations whose name, like \"no load, fbpp, 1 Gib/s\", matches `regexp`",
		func(s string) (err error) {
			o.only, err = regexp.Compile(s)
			return err
		})
	flags.StringVar(&o.publish, "publish", "",
		"when all is done, copy the report, its charts and the figures to `folder`")
	flags.StringVar(&o.redraw, "redraw", "",
		"run nothing: make the report and charts in `folder` anew from its figures")
	cli.Var(flags, &o.series, "kernel",
		fmt.Sprintf("kernel `series` of the guest, one of %v", guest.AllSeries()))
	if err := cli.Parse(flags, args, stdout); err != nil {
		return o, err
	}
	if o.growth && (o.trace || o.quick || o.memory != 0 || o.publish != "") {
		return o, cli.Usagef("--growth goes with --rounds, --only, --anew and --kernel alone")
	}
	if o.trace && (o.quick || o.memory != 0) {
		return o, cli.Usagef("--trace goes with --rounds, --publish and --kernel alone")
	}
	if o.pulse && (o.quick || o.growth || o.trace || o.anew || o.redraw != "") {
		return o, cli.Usagef("--pulse goes with --rounds, --only, --memory, --publish and --kernel alone")
	}
	if o.rounds < 1 {
		return o, cli.Usagef("--rounds %d: the least is 1", o.rounds)
	}
	if o.publish != "" { // fail now, and not after hours
		if err := os.MkdirAll(o.publish, 0o755); err != nil {
			return o, cli.Usagef("--publish: %w", err)
		}
	}
	return o, nil
}

// folder is where the results go, below build/bench. Those of --quick and of --memory
// have a folder of their own, so that they do not replace the results of the full matrix.
func (o *options) folder() string {
	name := ""
	if o.quick {
		name = "quick"
	}
	if o.memory != 0 {
		name = filepath.Join(name, fmt.Sprintf("%dMiB", o.memory))
	}
	return name
}

// matrix returns what is to be run.
func (o *options) matrix(s sizes) []planned {
	all := fullMatrix(s, o.rounds)
	if o.quick {
		all = quickMatrix()
	}
	unwanted := func(p planned) bool { return !o.only.MatchString(p.benchCase.String()) }
	return slices.DeleteFunc(all, unwanted)
}

func bench(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parse(args, stdout)
	if err != nil {
		return err
	}
	if o.redraw != "" {
		return redraw(o.redraw)
	}
	if o.trace {
		return trace(ctx, o, stdout)
	}
	if o.pulse {
		return pulses(ctx, o, stdout)
	}
	if o.growth {
		return grow(ctx, o, args, stdout)
	}
	free, err := lab.HostMemoryMiB()
	if err != nil {
		return fmt.Errorf("plan the guest: %w", err)
	}
	s, err := planSizes(free, o.memory)
	if err != nil {
		return err
	}
	cases := o.matrix(s)
	if len(cases) == 0 {
		return fmt.Errorf("no migration is called %v", o.only)
	}
	parts, err := lab.Open(ctx, func(line string) { fmt.Fprintln(stdout, line) })
	if err != nil {
		return err
	}
	dir := filepath.Join(parts.Root, "build", "bench", o.folder())
	here, err := describe(ctx, parts, o.series, args)
	if err != nil {
		return err
	}
	r, err := openResults(filepath.Join(dir, "results.json"), here, s, o.anew)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "fbpp-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if r.aside != "" {
		fmt.Fprintf(stdout, "Earlier results are of other programs, another machine"+
			" or another size of guest, or are not to be continued: %s\n", r.aside)
	}
	if s.Note != "" {
		fmt.Fprintln(stdout, s.Note)
	}
	p := newProgress(stdout, schedule(cases), r)
	runner := &runner{lab: parts, series: o.series, sizes: s, dir: scratch, say: p.say}
	for what := range p.left() {
		rec := runner.run(ctx, what)
		if ctx.Err() != nil {
			break // an interrupted run has no figures
		}
		p.done(&rec)
		if err := r.add(rec); err != nil {
			return err
		}
		if err := newReport(r, cases).write(dir); err != nil { // whatever ends this command
			return err
		}
	}
	return conclude(ctx, newReport(r, cases), dir, o.publish, stdout)
}

// conclude writes and prints the report. It returns an error unless all runs were made
// and succeeded.
func conclude(ctx context.Context, r *report, dir, publish string, stdout io.Writer) error {
	if err := r.write(dir); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\nThe report is %s, the figures are in %s.\n",
		filepath.Join(dir, "report.html"), r.path)
	for _, t := range r.Targets {
		fmt.Fprintf(stdout, "%-7s %s: %s\n", t.verdict(), t.Text, t.Seen)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted with %d of %d migrations done:"+
			" the same command, without --anew, continues", r.Done, r.Planned)
	}
	if failed := r.failures(); len(failed) > 0 {
		return fmt.Errorf("%d migrations failed:\n%s", len(failed), strings.Join(failed, "\n"))
	}
	if publish != "" {
		return r.publish(publish)
	}
	return nil
}
