// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"math"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Measures of a chart of growth, in points.
const (
	growthColumns           = 5
	growthHeight  vg.Length = 128
	growthHead    vg.Length = 24
	growthFoot    vg.Length = 18
	growthGap     vg.Length = 16
)

// drawGrowth draws a panel for each curve. Both axes of a panel are logarithmic, so that
// linear growth has the same slope everywhere.
func drawGrowth(a axis, all []curve, caption string) ([]byte, error) {
	lines := (len(all) + growthColumns - 1) / growthColumns
	height := headHeight + growthHeight*vg.Length(lines) + noteHeight
	canvas := vgsvg.New(chartWidth, height)
	d := &drawing{draw.New(canvas), height}
	d.rect(0, 0, chartWidth, height, paper)
	d.outline(0.5, 0.5, chartWidth-1, height-1)
	title := map[axis]string{
		byMemory: "Growth with the guest's memory, GiB", byCPUs: "Growth with the guest's CPUs",
		byVMs: "Growth with the guests that migrate at once",
	}[a]
	d.write(title, chartMargin, 21, 13, ink, true)
	d.write(caption, chartMargin, 38, 8.5, faintInk, false)
	width := (chartWidth - 2*chartMargin) / growthColumns
	for i, c := range all {
		x := chartMargin + width*vg.Length(i%growthColumns)
		y := headHeight + growthHeight*vg.Length(i/growthColumns)
		d.curve(c, x, y, width-growthGap)
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("draw growth: %w", err)
	}
	return portable(out.Bytes()), nil
}

// curve draws one panel.
func (d *drawing) curve(c curve, x, y, width vg.Length) {
	d.write(c.name, x, y+growthHead/3, 9, ink, true)
	top, bottom := y+growthHead, y+growthHeight-growthFoot-6
	d.rect(x, top-4, width, bottom-top+8, track)
	low, high := c.bounds()
	first, last := float64(c.at[0]), float64(c.at[len(c.at)-1])
	const inset = 8
	at := func(n, v float64) (vg.Length, vg.Length) {
		return x + inset + (width-2*inset)*vg.Length(share(n, first, last)),
			bottom - (bottom-top)*vg.Length(share(v, low, high))
	}
	// Linear growth from the first point on, up to the border.
	if from := c.y[0].Median; from > 0 && last > first {
		to := min(from*last/first, high)
		x1, y1 := at(first, from)
		x2, y2 := at(first*to/from, to)
		d.line(x1, y1, x2, y2, draw.LineStyle{Color: barColor(stock), Width: 0.8})
	}
	for i := range c.at {
		px, py := at(float64(c.at[i]), c.y[i].Median)
		if i > 0 {
			qx, qy := at(float64(c.at[i-1]), c.y[i-1].Median)
			d.line(qx, qy, px, py, draw.LineStyle{Color: barColor(fbpp), Width: 1.2})
		}
		d.rect(px-2, py-2, 4, 4, barColor(fbpp))
		left := max(px-8, x)
		d.write(short(c.y[i].Median), min(left, x+width-22), max(py-7, top-2), 7.5, ink, false)
		d.write(fmt.Sprint(c.at[i]), px-3, bottom+12, 7.5, faintInk, false)
	}
}

// bounds are those of the vertical axis: at least a decade.
func (c curve) bounds() (low, high float64) {
	low, high = math.Inf(1), 0
	for _, y := range c.y {
		if y.Median > 0 {
			low, high = min(low, y.Median), max(high, y.Median)
		}
	}
	if high == 0 {
		return 0.1, 1
	}
	return low, max(high, low*10)
}

// share is where v lies between low and high on a logarithmic axis, from 0 to 1. What is
// below, such as 0, counts as low.
func share(v, low, high float64) float64 {
	if v <= low || high <= low {
		return 0
	}
	return math.Log(v/low) / math.Log(high/low)
}
