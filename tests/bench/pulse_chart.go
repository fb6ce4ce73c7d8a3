// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Measures of a chart of the guest's work, in points.
const (
	pulseHeight vg.Length = 58 // of one way
	pulseWave   vg.Length = 34 // of the pace before
	pulseNames  vg.Length = 150
)

// drawPulses draws how much a guest did in each step, a line for each way to move it. The height is
// relative to the pace before the migration.
func drawPulses(l load, records []record, caption string) ([]byte, error) {
	if len(records) == 0 {
		return nil, fmt.Errorf("draw the guest's work: no figures of %s", l)
	}
	steps := 0
	for _, rec := range records {
		steps = max(steps, len(rec.Pulse.Steps))
	}
	height := headHeight + pulseHeight*vg.Length(len(records)) + noteHeight
	canvas := vgsvg.New(chartWidth, height)
	d := &drawing{draw.New(canvas), height}
	d.rect(0, 0, chartWidth, height, paper)
	d.outline(0.5, 0.5, chartWidth-1, height-1)
	d.write(fmt.Sprintf("%s: the guest's work in each 100 ms of its migration", l),
		chartMargin, 21, 13, ink, true)
	d.write(caption, chartMargin, 38, 8.5, faintInk, false)
	around := int(pulseAround / pulseStep)
	x := chartMargin + pulseNames
	w := &waves{d, x, (chartWidth - chartMargin - x) / vg.Length(around+steps), around}
	for i, rec := range records {
		w.draw(&rec, headHeight+pulseHeight*vg.Length(i))
	}
	w.seconds(steps, height-noteHeight+4)
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("draw the guest's work: %w", err)
	}
	return portable(out.Bytes()), nil
}

// waves draws below each other, on one axis of time.
type waves struct {
	*drawing
	x, step vg.Length
	around  int // steps before the command
}

// atMS is where a time after the command is.
func (w *waves) atMS(ms int64) vg.Length {
	return w.x + w.step*(vg.Length(w.around)+vg.Length(ms)/vg.Length(pulseStep.Milliseconds()))
}

// draw draws one way from y on.
func (w *waves) draw(rec *record, y vg.Length) {
	p := rec.Pulse
	bottom := y + pulseHeight - 12
	w.write(string(rec.Method), chartMargin, bottom-pulseWave+4, 9, ink, rec.Method != stock)
	w.write(string(rec.Transport), chartMargin, bottom-pulseWave+16, 9, ink, false)
	w.write(fmt.Sprintf("%.0f %% kept, pause %d ms", 100*p.Achieved, p.PauseMS),
		chartMargin, bottom-pulseWave+28, 8, faintInk, false)
	pace := max(p.pace(), 1)
	all := append(slices.Clone(p.Before), p.Steps...)
	w.rect(w.x, bottom-pulseWave, w.step*vg.Length(len(all)), pulseWave, track)
	for i, n := range all {
		high := pulseWave * vg.Length(min(float64(n)/pace, 1.25))
		w.rect(w.x+w.step*vg.Length(i), bottom-high, w.step*0.85, high, barColor(rec.Method))
	}
	mark := func(ms int64, style draw.LineStyle) {
		w.line(w.atMS(ms), bottom-pulseWave-6, w.atMS(ms), bottom+3, style)
	}
	mark(0, draw.LineStyle{Color: ink, Width: 0.9})
	mark(p.RunsAfter, floorLine())
	mark(p.EndMS, draw.LineStyle{Color: ink, Width: 0.9})
}

// seconds labels the axis of time.
func (w *waves) seconds(steps int, y vg.Length) {
	total := int64(steps) * pulseStep.Milliseconds()
	every := int64(1000)
	for total/every > 12 {
		every *= 2
	}
	for ms := int64(0); ms <= total; ms += every {
		w.write(fmt.Sprintf("%d s", ms/1000), w.atMS(ms)-4, y, 8, faintInk, false)
	}
	w.write("solid: command, end; dashed: runs there", chartMargin, y, 7.5, faintInk, false)
}
