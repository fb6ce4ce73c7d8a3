// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"image/color"
	"slices"

	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	plotfont "gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Measures of a chart, in points. A chart is as wide as a page of text, so that its text
// is as large as the text around it.
const (
	chartWidth  vg.Length = 720
	chartMargin vg.Length = 14
	headHeight  vg.Length = 50
	noteHeight  vg.Length = 20
	namesWidth  vg.Length = 106
	panelHead   vg.Length = 22
	panelGap    vg.Length = 14
	barPitch    vg.Length = 15.5
	barHeight   vg.Length = 10
	labelWidth  vg.Length = 30 // right of the longest bar
	maxColumns            = 4
	// namesEnd is the x at which the methods' names end. No other text begins there.
	namesEnd = chartMargin + namesWidth - 8
)

// rgb is an opaque colour, written 0xrrggbb.
type rgb uint32

// RGBA implements color.Color.
func (c rgb) RGBA() (r, g, b, a uint32) {
	return uint32(c>>16&0xff) * 0x101, uint32(c>>8&0xff) * 0x101, uint32(c&0xff) * 0x101, 0xffff
}

// The colours. A chart has a background of its own, so that it can also be read on a dark
// page.
const (
	paper    rgb = 0xffffff
	frame    rgb = 0xd0d7de
	ink      rgb = 0x1f2328
	faintInk rgb = 0x59636e
	badInk   rgb = 0xb00020
	track    rgb = 0xf1f3f5
)

// barColor distinguishes the methods of this project, plain migration and the others.
func barColor(m method) color.Color {
	switch m {
	case fbpp, fbppDrop, fbppSample, introspect, introspectLast, introspectWritten:
		return rgb(0x0a846a)
	case stock:
		return rgb(0x6e7781)
	}
	return rgb(0xa9b7c9)
}

// drawing is a canvas whose y grows downwards.
type drawing struct {
	c      draw.Canvas
	height vg.Length
}

func (d *drawing) rect(x, y, w, h vg.Length, fill color.Color) {
	d.c.FillPolygon(fill, []vg.Point{d.at(x, y), d.at(x+w, y), d.at(x+w, y+h), d.at(x, y+h)})
}

func (d *drawing) line(x1, y1, x2, y2 vg.Length, style draw.LineStyle) {
	d.c.StrokeLines(style, []vg.Point{d.at(x1, y1), d.at(x2, y2)})
}

// write writes from x on, or up to namesEnd, with the middle of the letters at y.
func (d *drawing) write(s string, x, y, size vg.Length, colour rgb, bold bool) {
	style := text.Style{
		Color: colour, Handler: plot.DefaultTextHandler, YAlign: text.YCenter,
		Font: plotfont.Font{Typeface: "Liberation", Variant: "Sans", Size: size},
	}
	if bold {
		style.Font.Weight = font.WeightBold
	}
	d.c.FillText(style, d.at(x, y), s)
}

func (d *drawing) at(x, y vg.Length) vg.Point { return vg.Point{X: x, Y: d.height - y} }

// draw returns the chart as SVG.
func (c chart) draw(rows []row, caption string) ([]byte, error) {
	panels := c.panels(rows)
	if len(panels) == 0 {
		return nil, fmt.Errorf("draw chart %s: no figures", c.Name)
	}
	lines := (len(panels) + maxColumns - 1) / maxColumns
	columns := (len(panels) + lines - 1) / lines // about as many in each line
	pitch := panelHead + barPitch*vg.Length(len(panels[0].bars)) + panelGap
	height := headHeight + pitch*vg.Length(lines) + noteHeight
	canvas := vgsvg.New(chartWidth, height)
	d := &drawing{draw.New(canvas), height}
	d.rect(0, 0, chartWidth, height, paper)
	d.outline(0.5, 0.5, chartWidth-1, height-1)
	d.write(c.Title, chartMargin, 21, 13, ink, true)
	d.write(caption, chartMargin, 38, 8.5, faintInk, false)

	width := (chartWidth - 2*chartMargin - namesWidth) / vg.Length(columns)
	scale := (width - panelGap - labelWidth) / vg.Length(longest(panels))
	for i, p := range panels {
		y := headHeight + pitch*vg.Length(i/columns)
		if i%columns == 0 {
			for j, b := range p.bars {
				d.write(string(b.method), namesEnd, barMiddle(y, j), 9, ink, b.method == fbpp)
			}
		}
		d.panel(p, chartMargin+namesWidth+width*vg.Length(i%columns), y, width-panelGap-labelWidth, scale)
	}
	d.notes(panels, height-15)

	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("draw chart %s: %w", c.Name, err)
	}
	return portable(out.Bytes()), nil
}

// portable makes the picture readable without the library's font, which few systems
// have. It adds fonts to fall back to, and right-aligns the names, which in a wider font
// would otherwise run into the bars. The library can do neither.
func portable(svg []byte) []byte {
	const family = "font-family:Liberation Sans"
	svg = bytes.ReplaceAll(svg, []byte(family), []byte(family+",Arial,Helvetica,sans-serif"))
	name := fmt.Sprintf(`<text x="%.5g"`, float64(namesEnd))
	return bytes.ReplaceAll(svg, []byte(name), []byte(name+` text-anchor="end"`))
}

// notes explains the signs that the panels use.
func (d *drawing) notes(panels []panel, y vg.Length) {
	x := chartMargin
	if panels[0].floor > 0 {
		d.line(x, y-5, x, y+5, floorLine())
		d.write("the least that can be sent: what is not free", x+6, y, 8.5, faintInk, false)
		x += 230
	}
	if slices.ContainsFunc(panels, func(p panel) bool {
		return slices.ContainsFunc(p.bars, func(b bar) bool { return b.absent == notPlanned })
	}) {
		note := "  not among the runs: a balloon must leave the guest what its load keeps"
		d.write(notPlanned+note, x, y, 8.5, faintInk, false)
	}
}

// longest is the largest figure of all panels, which share one scale.
func longest(panels []panel) float64 {
	v := 0.0
	for _, p := range panels {
		v = max(v, p.floor)
		for _, b := range p.bars {
			v = max(v, b.Max)
		}
	}
	if v == 0 {
		return 1
	}
	return v
}

// barMiddle is where the middle of a panel's bar is.
func barMiddle(panelTop vg.Length, i int) vg.Length {
	return panelTop + panelHead + barPitch*vg.Length(i) + barHeight/2
}

// panel draws a load's bars from x on, at most width long.
func (d *drawing) panel(p panel, x, y, width, scale vg.Length) {
	d.write(string(p.load), x, y+panelHead/2, 10, ink, true)
	for i, b := range p.bars {
		mid := barMiddle(y, i)
		if b.absent == "" {
			d.rect(x, mid-barHeight/2, width, barHeight, track)
			d.rect(x, mid-barHeight/2, max(scale*vg.Length(b.Median), 0.75), barHeight, barColor(b.method))
		}
		if b.Max > b.Min {
			style := draw.LineStyle{Color: ink, Width: 0.8}
			d.line(x+scale*vg.Length(b.Min), mid, x+scale*vg.Length(b.Max), mid, style)
		}
		colour := ink
		switch {
		case b.failed:
			colour = badInk
		case b.absent != "":
			colour = faintInk
		}
		label, floor := scale*vg.Length(b.Max), scale*vg.Length(p.floor)
		if floor > label && floor < label+labelWidth {
			label = floor // the line would cross it
		}
		d.write(b.label(), x+label+4, mid, 9, colour, b.method == fbpp)
	}
	if p.floor > 0 {
		at := x + scale*vg.Length(p.floor)
		d.line(at, y+panelHead-3, at, barMiddle(y, len(p.bars)-1)+barHeight/2+3, floorLine())
	}
}

func (d *drawing) outline(x, y, w, h vg.Length) {
	style := draw.LineStyle{Color: frame, Width: 1}
	d.line(x, y, x+w, y, style)
	d.line(x+w, y, x+w, y+h, style)
	d.line(x+w, y+h, x, y+h, style)
	d.line(x, y+h, x, y, style)
}

func floorLine() draw.LineStyle {
	return draw.LineStyle{Color: badInk, Width: 0.9, Dashes: []vg.Length{2.5, 2}}
}
