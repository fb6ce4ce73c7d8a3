// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fbpp-project/fbpp/tests/lab"
)

// pulseCases are the ways to move a guest that are compared by how its work goes meanwhile.
func pulseCases() (all []benchCase) {
	for _, l := range postcopyLoads() {
		all = append(all,
			benchCase{l, stock, gigabit, stream}, benchCase{l, fbpp, gigabit, stream},
			benchCase{l, stock, gigabit, postcopy}, benchCase{l, fbppSample, gigabit, hybrid},
			benchCase{l, stock, gigabit, handOver}, benchCase{l, fbppSample, gigabit, arrival})
	}
	return all
}

// pulses runs these, and draws a chart for each load.
func pulses(ctx context.Context, o options, stdout io.Writer) error {
	runs := o.pulseRuns()
	if len(runs) == 0 {
		return fmt.Errorf("no migration is called %v", o.only)
	}
	free, err := lab.HostMemoryMiB()
	if err != nil {
		return fmt.Errorf("plan the guest: %w", err)
	}
	s, err := planSizes(free, o.memory)
	if err != nil {
		return err
	}
	parts, err := lab.Open(ctx, func(line string) { fmt.Fprintln(stdout, line) })
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "fbpp-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	dir := filepath.Join(parts.Root, "build", "bench", "pulse")
	r := &runner{
		lab: parts, series: o.series, sizes: s, dir: scratch, say: func(string) {}, pulse: true,
	}
	caption := fmt.Sprintf("Guest with %d MiB and 2 CPUs, Linux %s, under %s, over 1 Gib/s.",
		s.Guest, parts.Kernel(o.series).Version, strings.ToUpper(string(parts.Accel)))
	byLoad := make(map[load][]record)
	failed := 0
	for _, what := range runs {
		rec := r.run(ctx, what)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if rec.failed() {
			failed++
			fmt.Fprintf(stdout, "%v: %s\n", what.benchCase, rec.reason())
			continue
		}
		fmt.Fprintf(stdout, "%v: %s\n", what.benchCase, rec.Pulse)
		byLoad[what.Load] = append(byLoad[what.Load], rec)
		if err := writePulses(dir, byLoad, caption); err != nil { // whatever ends this command
			return err
		}
	}
	fmt.Fprint(stdout, "\n", pulseTable(byLoad).markdown())
	if failed > 0 {
		return fmt.Errorf("%d migrations failed", failed)
	}
	if o.publish == "" {
		return nil
	}
	return writePulses(filepath.Join(o.publish, imageDir), byLoad, caption)
}

// pulseRuns are the runs that the options name, in turn.
func (o *options) pulseRuns() []run {
	var cases []planned
	for _, c := range pulseCases() {
		if o.only.MatchString(c.String()) {
			cases = append(cases, planned{c, o.rounds})
		}
	}
	return inTurn(cases)
}

// writePulses writes a chart for each load, and the figures of all.
func writePulses(dir string, byLoad map[load][]record, caption string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for l, records := range byLoad {
		svg, err := drawPulses(l, typical(records), caption)
		if err != nil {
			return err
		}
		name := "pulse-" + strings.ReplaceAll(string(l), " ", "-") + ".svg"
		if err := writeFile(filepath.Join(dir, name), svg); err != nil {
			return err
		}
	}
	figures, err := json.MarshalIndent(byLoad, "", "  ")
	if err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	return writeFile(filepath.Join(dir, "pulse.json"), append(figures, '\n'))
}

// typical returns of each way the round whose share of the pace is the median.
func typical(records []record) (some []record) {
	ways := make(map[benchCase][]record)
	for _, rec := range records {
		ways[rec.benchCase] = append(ways[rec.benchCase], rec)
	}
	for _, c := range pulseCases() {
		rounds := ways[c]
		if len(rounds) == 0 {
			continue
		}
		slices.SortFunc(rounds, func(a, b record) int {
			return cmp.Compare(a.Pulse.Achieved, b.Pulse.Achieved)
		})
		some = append(some, rounds[len(rounds)/2])
	}
	return some
}

// String says how the work went.
func (p *pulseRecord) String() string {
	return fmt.Sprintf("%.0f %% of the pace for %.1f s, longest pause %d ms, runs there after %d ms",
		100*p.Achieved, float64(p.EndMS)/1000, p.PauseMS, p.RunsAfter)
}

// pulseTable compares the ways, by the medians and spreads of their rounds.
func pulseTable(byLoad map[load][]record) table {
	t := table{Title: "The guest's work while it moves", Head: []string{
		"load", "method", "way", "runs there after", "all is there after", "pace kept", "longest pause"}}
	for _, c := range pulseCases() {
		var lead, end, kept, pause []float64
		for _, rec := range byLoad[c.Load] {
			if rec.benchCase == c {
				p := rec.Pulse
				lead, end = append(lead, float64(p.RunsAfter)), append(end, float64(p.EndMS))
				kept, pause = append(kept, 100*p.Achieved), append(pause, float64(p.PauseMS))
			}
		}
		if len(lead) > 0 {
			t.Rows = append(t.Rows, []string{string(c.Load), string(c.Method), string(c.Transport),
				ms(newSpread(lead)), ms(newSpread(end)), figure(newSpread(kept), "%.0f", "%"),
				ms(newSpread(pause))})
		}
	}
	return t
}
