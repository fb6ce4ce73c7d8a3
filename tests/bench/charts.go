// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart is a picture of one figure: a group of bars for each load, a bar for
// each method.
type chart struct {
	Name  string // of the file, without its extension
	Title string
	axis  string
	link  link
	scale float64 // from the figure's unit to the axis's
	value func(*row) spread
}

func allCharts() []chart {
	const gib = 1 << 30
	transferred := func(r *row) spread { return r.Transferred }
	total := func(r *row) spread { return r.Total }
	return []chart{
		{"transferred", "Data transferred", "GiB", unlimited, 1.0 / gib, transferred},
		{"total", "Total migration time", "s", unlimited, 1e-3, total},
		{"setup", "Setup time", "ms", unlimited, 1, func(r *row) spread { return r.Setup }},
		{"downtime", "Downtime", "ms", unlimited, 1, func(r *row) spread { return r.Downtime }},
		{"total-10g", "Total migration time at 10 Gib/s", "s", gigabit10, 1e-3, total},
		{"total-1g", "Total migration time at 1 Gib/s", "s", gigabit, 1e-3, total},
	}
}

// palette has a colour for each method, told apart by the colour-blind too
// (Okabe and Ito).
func palette(m method) color.Color {
	switch m {
	case stock:
		return color.RGBA{0x99, 0x99, 0x99, 0xff}
	case balloon1:
		return color.RGBA{0xe6, 0x9f, 0x00, 0xff}
	case balloon4:
		return color.RGBA{0xf0, 0xe4, 0x42, 0xff}
	case freePageHint:
		return color.RGBA{0xcc, 0x79, 0xa7, 0xff}
	case freeReporting:
		return color.RGBA{0x56, 0xb4, 0xe9, 0xff}
	}
	return color.RGBA{0x00, 0x9e, 0x73, 0xff}
}

// draw returns the chart as SVG, or nil when no row has anything for it.
func (c chart) draw(rows []row) ([]byte, error) {
	var (
		loads   []load
		methods []method
		values  = make(map[benchCase]float64)
	)
	for i := range rows {
		r := &rows[i]
		if r.Link != c.link || r.Transport != stream || r.Total.N == 0 {
			continue
		}
		if !slices.Contains(loads, r.Load) {
			loads = append(loads, r.Load)
		}
		if !slices.Contains(methods, r.Method) {
			methods = append(methods, r.Method)
		}
		values[r.benchCase] = c.value(r).Median * c.scale
	}
	if len(loads) == 0 {
		return nil, nil
	}
	slices.SortFunc(methods, func(a, b method) int {
		return slices.Index(allMethods(), a) - slices.Index(allMethods(), b)
	})

	p := plot.New()
	p.Title.Text = c.Title
	p.Y.Label.Text = c.axis
	p.Y.Min = 0
	group := vg.Points(60)
	width := group / vg.Length(len(methods))
	// Text to the right of its colour: a viewer's font may be wider than ours.
	whole := max(group*vg.Length(len(loads))*1.35+vg.Points(90), 5*vg.Inch)
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.XOffs = whole - vg.Points(200)
	p.Legend.Padding = vg.Points(2)
	var names []string
	for _, l := range loads {
		names = append(names, string(l))
	}
	for i, m := range methods {
		heights := make(plotter.Values, len(loads))
		for j, l := range loads {
			heights[j] = values[benchCase{l, m, c.link, stream}]
		}
		bars, err := plotter.NewBarChart(heights, width)
		if err != nil {
			return nil, fmt.Errorf("draw chart %s: %w", c.Name, err)
		}
		bars.Color = palette(m)
		bars.LineStyle.Width = 0
		bars.Offset = width*vg.Length(i) - group/2 + width/2
		p.Add(bars)
		p.Legend.Add(string(m), bars)
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.6, float64(len(loads))-0.4
	p.Y.Max *= 1.35 // room for the legend
	return c.svg(p, whole)
}

func (c chart) svg(p *plot.Plot, width vg.Length) ([]byte, error) {
	canvas := vgsvg.New(width, 3.4*vg.Inch)
	p.Draw(draw.New(canvas))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("draw chart %s: %w", c.Name, err)
	}
	return out.Bytes(), nil
}
