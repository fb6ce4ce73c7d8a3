// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/fbpp-project/fbpp/tests/lab"
)

// axis is what grows while the rest stays as it is.
type axis string

// The axes.
const (
	byMemory axis = "memory" // of one guest, in GiB
	byCPUs   axis = "CPUs"   // of one guest
	byVMs    axis = "VMs"    // small guests that migrate at once
)

// step is one value of an axis.
type step struct {
	Axis axis `json:"axis"`
	At   int  `json:"at"`
}

// String implements fmt.Stringer.
func (s step) String() string {
	if s.Axis == byMemory {
		return fmt.Sprintf("%d GiB of memory", s.At)
	}
	return fmt.Sprintf("%d %s", s.At, s.Axis)
}

// steps are all values, those of an axis one after the other.
func steps() []step {
	return []step{
		{byMemory, 1}, {byMemory, 4}, {byMemory, 16}, {byMemory, 64},
		{byCPUs, 1}, {byCPUs, 4}, {byCPUs, 16},
		{byVMs, 1}, {byVMs, 8}, {byVMs, 32},
	}
}

// guests returns how many guests migrate, and the MiB and CPUs of each.
func (s step) guests() (n, mib, cpus int) {
	switch s.Axis {
	case byMemory:
		return 1, s.At << 10, 2
	case byCPUs:
		return 1, 4 << 10, s.At
	}
	return s.At, 384, 1
}

// needs estimates the MiB of host memory that both ends take: what a guest touches, its
// struct pages, a 64th of its memory, and QEMU. The guests are mostly free.
func (s step) needs() int {
	n, mib, _ := s.guests()
	const touched, qemu = 160, 120
	return 2 * n * (touched + mib/64 + qemu)
}

// growth is one run of a step: the medians over its guests, but for the totals.
type growth struct {
	step
	Round int    `json:"round"` // counts from 1
	Error string `json:"error,omitempty"`

	WakeupUS   float64 `json:"wakeup_us"`
	WalkUS     float64 `json:"walk_us"`
	DecodeUS   float64 `json:"decode_us"`
	ExchangeUS float64 `json:"exchange_us"`
	ArmUS      float64 `json:"arm_us"`
	ClearUS    float64 `json:"clear_us"`
	SetupMS    float64 `json:"setup_ms"`
	TotalMS    float64 `json:"total_ms"`
	DowntimeMS float64 `json:"downtime_ms"`
	// CPU time and memory of the source's fbppd. The memory has none of the guest's.
	BackendCPUMS  float64 `json:"fbppd_cpu_ms"`
	BackendMemory float64 `json:"fbppd_memory_bytes"`
}

// growthFigure is a figure of a growth.
type growthFigure struct {
	name  string
	scale float64 // from the field's unit to the name's
	value func(*growth) float64
}

func growthFigures() []growthFigure {
	return []growthFigure{
		{"Wake-up, ms", 1e-3, func(g *growth) float64 { return g.WakeupUS }},
		{"Walk, ms", 1e-3, func(g *growth) float64 { return g.WalkUS }},
		{"Exchange, ms", 1e-3, func(g *growth) float64 { return g.ExchangeUS }},
		{"Decode, ms", 1e-3, func(g *growth) float64 { return g.DecodeUS }},
		{"Arm, ms", 1e-3, func(g *growth) float64 { return g.ArmUS }},
		{"Clear, ms", 1e-3, func(g *growth) float64 { return g.ClearUS }},
		{"Setup, ms", 1, func(g *growth) float64 { return g.SetupMS }},
		{"Total, ms", 1, func(g *growth) float64 { return g.TotalMS }},
		{"Downtime, ms", 1, func(g *growth) float64 { return g.DowntimeMS }},
		{"CPU of an fbppd, ms", 1, func(g *growth) float64 { return g.BackendCPUMS }},
		{"Memory of an fbppd, MiB", 1.0 / (1 << 20), func(g *growth) float64 {
			return g.BackendMemory
		}},
	}
}

// curve is the growth of one figure along an axis.
type curve struct {
	name string
	at   []int
	y    []spread
}

// curves returns the figures of an axis, without those for which there are none.
func curves(a axis, runs []growth) []curve {
	var all []curve
	for _, f := range growthFigures() {
		c := curve{name: f.name}
		for _, s := range steps() {
			var v []float64
			for i := range runs {
				if r := &runs[i]; r.step == s && s.Axis == a && r.Error == "" {
					v = append(v, f.value(r)*f.scale)
				}
			}
			if len(v) > 0 {
				c.at, c.y = append(c.at, s.At), append(c.y, newSpread(v))
			}
		}
		if len(c.at) > 0 {
			all = append(all, c)
		}
	}
	return all
}

// steepest returns the largest exponent between two neighbours: 1 is linear, 0 constant. It
// looks only at what is large enough to be measured, from least on.
func (c curve) steepest(least float64) (exponent float64, from, to int) {
	exponent = math.Inf(-1)
	for i := 1; i < len(c.at); i++ {
		a, b := c.y[i-1].Median, c.y[i].Median
		if a < least || b < least {
			continue
		}
		e := math.Log(b/a) / math.Log(float64(c.at[i])/float64(c.at[i-1]))
		if e > exponent {
			exponent, from, to = e, c.at[i-1], c.at[i]
		}
	}
	return exponent, from, to
}

// worse tells where a figure grows clearly worse than linearly, in sentences.
func worse(runs []growth) []string {
	var found []string
	for _, a := range []axis{byMemory, byCPUs, byVMs} {
		for _, c := range curves(a, runs) {
			const linear, least = 1.15, 1 // below a ms or MiB it is noise
			if e, from, to := c.steepest(least); e > linear {
				found = append(found, fmt.Sprintf("%s, from %v to %v: to the power of %.2f",
					c.name, step{a, from}, step{a, to}, e))
			}
		}
	}
	return found
}

// grow runs what is missing of all steps, and draws a chart for each axis.
func grow(ctx context.Context, o options, args []string, stdout io.Writer) error {
	parts, err := lab.Open(ctx, func(line string) { fmt.Fprintln(stdout, line) })
	if err != nil {
		return err
	}
	here, err := describe(ctx, parts, o.series, args)
	if err != nil {
		return err
	}
	dir := filepath.Join(parts.Root, "build", "bench", "growth")
	r, err := openGrowth(filepath.Join(dir, "results.json"), here, o.anew)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "fbpp-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	g := &grower{runner: runner{lab: parts, series: o.series, dir: scratch}, out: stdout}
	g.say = g.tell
	left := 0
	for round := 1; round <= o.rounds; round++ {
		for _, s := range steps() {
			if !o.only.MatchString(s.String()) || r.done(s, round) {
				continue
			}
			free, err := lab.HostMemoryMiB()
			if err != nil {
				return err
			}
			if s.needs() > free {
				fmt.Fprintf(stdout, "left out: %v, which need %d MiB, and %d are free\n", s, s.needs(), free)
				left++
				continue
			}
			fmt.Fprintf(stdout, "%v, round %d\n", s, round)
			one := g.run(ctx, s, round)
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted: the same command, without --anew, continues")
			}
			fmt.Fprintln(stdout, one.line())
			if err := r.add(one); err != nil {
				return err
			}
			if err := r.draw(dir); err != nil {
				return err
			}
		}
	}
	for _, w := range worse(r.Runs) {
		fmt.Fprintln(stdout, "worse than linear:", w)
	}
	failed := slices.ContainsFunc(r.Runs, func(g growth) bool { return g.Error != "" })
	fmt.Fprintf(stdout, "The charts and figures are in %s.\n", dir)
	if failed || left > 0 {
		return fmt.Errorf("not all steps have figures: the same command tries those again")
	}
	return nil
}

// line is what came of the run, for the terminal.
func (g *growth) line() string {
	if g.Error != "" {
		return "    FAILED " + g.Error
	}
	return fmt.Sprintf("    exchange %.1f ms, setup %.0f ms, total %.0f ms,"+
		" fbppd %.0f ms and %.1f MiB",
		g.ExchangeUS/1e3, g.SetupMS, g.TotalMS, g.BackendCPUMS, g.BackendMemory/(1<<20))
}
