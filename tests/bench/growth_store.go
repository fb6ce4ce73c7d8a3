// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"slices"
)

// growthResults is what build/bench/growth/results.json holds.
type growthResults struct {
	Origin origin   `json:"origin"`
	Runs   []growth `json:"runs"`

	path string
}

// openGrowth continues the results at path if they are of the same host and programs.
// Otherwise, or if anew is set, it keeps them under another name.
func openGrowth(path string, o origin, anew bool) (*growthResults, error) {
	r := &growthResults{Origin: o, path: path}
	old, _, err := resume(path, func(old *growthResults) bool {
		return !anew && old.Origin.continues(o)
	})
	if old != nil {
		r.Runs = old.Runs
	}
	return r, err
}

func (r *growthResults) done(s step, round int) bool {
	return slices.ContainsFunc(r.Runs, func(g growth) bool {
		return g.step == s && g.Round == round && g.Error == ""
	})
}

// add adds a run, or replaces an earlier one, and writes all of them.
func (r *growthResults) add(n growth) error {
	r.Runs = slices.DeleteFunc(r.Runs, func(g growth) bool {
		return g.step == n.step && g.Round == n.Round
	})
	r.Runs = append(r.Runs, n)
	return writeResults(r.path, r)
}

// draw draws a chart for each axis that has figures.
func (r *growthResults) draw(dir string) error {
	for _, a := range []axis{byMemory, byCPUs, byVMs} {
		c := curves(a, r.Runs)
		if len(c) == 0 {
			continue
		}
		svg, err := drawGrowth(a, c, r.caption())
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, "growth-"+string(a)+".svg"), svg); err != nil {
			return err
		}
	}
	return nil
}

func (r *growthResults) caption() string {
	return fmt.Sprintf("Linux %s under %s, %d CPUs of the host. Guests that are mostly free."+
		" The grey line would be linear growth.", r.Origin.Kernel, r.Origin.Accel, r.Origin.CPUs)
}
