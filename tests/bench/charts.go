// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// chart is a picture of one figure: a panel for each load, a bar for each
// method.
type chart struct {
	Name  string // of the file, without its extension
	Title string
	link  link
	scale float64 // from the figure's unit to the title's
	value func(*row) spread
	floor func(*row) spread // drawn as a line; nil: none
}

func allCharts() []chart {
	const gib = 1 << 30
	total := func(r *row) spread { return r.Total }
	return []chart{
		{"transferred", "Data transferred, GiB", unlimited, 1.0 / gib,
			func(r *row) spread { return r.Transferred }, func(r *row) spread { return r.Floor }},
		{"total", "Total migration time, s", unlimited, 1e-3, total, nil},
		{"setup", "Setup time, ms", unlimited, 1, func(r *row) spread { return r.Setup }, nil},
		{"downtime", "Downtime, ms", unlimited, 1, func(r *row) spread { return r.Downtime }, nil},
		{"total-1g", "Total migration time at 1 Gib/s, s", gigabit, 1e-3, total, nil},
		{"total-10g", "Total migration time at 10 Gib/s, s", gigabit10, 1e-3, total, nil},
	}
}

// charts returns the charts for which there are figures.
func (r *report) charts() []chart {
	return slices.DeleteFunc(allCharts(), func(c chart) bool { return len(c.panels(r.Rows)) == 0 })
}

// file is the name of the chart's picture.
func (c chart) file() string { return c.Name + ".svg" }

// bar is the figure of one method.
type bar struct {
	method method
	spread        // in the unit of the axis; N is 0 without figures
	failed bool   // a round of it failed
	absent string // why there are no figures
}

// notPlanned is shown instead of a figure whose runs were not planned.
const notPlanned = "–"

// panel is the part of a chart for one load.
type panel struct {
	load  load
	bars  []bar
	floor float64 // 0: none
}

// panels picks the figures of the chart from the rows. All panels have the same methods.
// Without any figures there are no panels.
func (c chart) panels(rows []row) []panel {
	var (
		loads   []load
		methods []method
		figures bool
		have    = make(map[benchCase]*row)
	)
	for i := range rows {
		r := &rows[i]
		if r.Link != c.link || r.Transport != stream {
			continue
		}
		if !slices.Contains(loads, r.Load) {
			loads = append(loads, r.Load)
		}
		if !slices.Contains(methods, r.Method) {
			methods = append(methods, r.Method)
		}
		have[r.benchCase] = r
		figures = figures || r.Total.N > 0
	}
	if !figures {
		return nil
	}
	slices.SortFunc(methods, func(a, b method) int {
		return slices.Index(allMethods(), a) - slices.Index(allMethods(), b)
	})
	var panels []panel
	for _, l := range loads {
		p := panel{load: l}
		for _, m := range methods {
			r := have[benchCase{l, m, c.link, stream}]
			p.bars = append(p.bars, c.bar(m, r))
			if r != nil && c.floor != nil && m == fbpp {
				p.floor = c.floor(r).Median * c.scale
			}
		}
		panels = append(panels, p)
	}
	return panels
}

// bar returns the figure of a row, which is nil where none was planned.
func (c chart) bar(m method, r *row) bar {
	switch {
	case r == nil:
		return bar{method: m, absent: notPlanned}
	case r.Total.N > 0:
		s := c.value(r)
		s.Median, s.Min, s.Max = s.Median*c.scale, s.Min*c.scale, s.Max*c.scale
		return bar{method: m, spread: s, failed: len(r.Failures) > 0}
	case len(r.Failures) > 0:
		return bar{method: m, failed: true, absent: "failed"}
	}
	return bar{method: m, absent: "not run"}
}

// label is the text beside a bar.
func (b bar) label() string {
	switch {
	case b.absent != "":
		return b.absent
	case b.failed:
		return short(b.Median) + " (some failed)"
	}
	return short(b.Median)
}

// short writes a figure with about three digits.
func short(v float64) string {
	switch {
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// caption describes in a line how a chart's figures were measured.
func (r *report) caption() string {
	rounds := 0
	for _, row := range r.Rows {
		rounds = max(rounds, row.Total.N)
	}
	text := fmt.Sprintf("Guest with %d MiB and 2 CPUs, Linux %s, under %s.",
		r.Sizes.Guest, r.Origin.Kernel, strings.ToUpper(r.Origin.Accel))
	if rounds > 1 {
		text += fmt.Sprintf(" Medians of %d migrations each;"+
			" thin lines go from the lowest to the highest.", rounds)
	}
	return text
}
