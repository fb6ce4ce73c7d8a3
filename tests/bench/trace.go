// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// span is a part of an exchange.
type span struct {
	name string
	time time.Duration
}

// reported are the times in the line that the agent logs for each report.
type reported struct{ started, drain, walked, walk time.Duration }

// parseReported reads the last such line of the agent's log.
func parseReported(log string) (r reported, err error) {
	at := strings.LastIndex(log, "\treported\t{")
	if at < 0 {
		return r, errors.New("the agent's log has no report")
	}
	line, _, _ := strings.Cut(log[at+len("\treported\t"):], "\n")
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		return r, fmt.Errorf("read the agent's log: %w", err)
	}
	for name, to := range map[string]*time.Duration{
		"started": &r.started, "drain": &r.drain, "walked": &r.walked, "walk": &r.walk,
	} {
		text, _ := fields[name].(string)
		if *to, err = time.ParseDuration(text); err != nil {
			return r, fmt.Errorf("read the agent's log: %s: %w", name, err)
		}
	}
	return r, nil
}

// spans puts together what QEMU, fbppd and the agent have measured, each by its own clock.
func spans(h *vm.Hints, r reported) []span {
	phase := func(name string) time.Duration {
		return time.Duration(h.Phase(name)) * time.Microsecond
	}
	var phases time.Duration
	for _, p := range h.Phases {
		phases += time.Duration(p.Time) * time.Microsecond
	}
	around := max(r.walked-r.drain-r.walk, 0)
	return []span{
		{"until the agent runs", phase(source.PhaseWakeup)},
		{"have lists of CPUs shortened", r.drain},
		{"walk, with a lock held", r.walk},
		{"around the walk: files of /proc, each CPU's list", around},
		{"send, and wait to be read", max(phase(source.PhaseTransfer)-r.drain-around, 0)},
		{"decode, and write the answer", phase(source.PhaseDecode) + phase(source.PhaseWrite)},
		{"QEMU: be woken, clear", max(time.Duration(h.Exchange)*time.Microsecond-phases, 0)},
	}
}

// trace migrates a guest of 1 GiB some times, and draws where the exchange's time goes.
func trace(ctx context.Context, o options, stdout io.Writer) error {
	parts, err := lab.Open(ctx, func(line string) { fmt.Fprintln(stdout, line) })
	if err != nil {
		return err
	}
	g := &grower{runner: runner{lab: parts, series: o.series}, out: stdout}
	g.say = g.tell
	var all [][]span
	for range o.rounds {
		pairs := make([]pair, 1)
		err := g.measureAll(ctx, step{byMemory, 1}, pairs)
		var one []span
		if err == nil {
			one, err = pairs[0].spans(ctx)
		}
		pairs[0].close()
		if err != nil {
			return err
		}
		all = append(all, one)
		for _, s := range one {
			fmt.Fprintf(stdout, "    %8.2f ms  %s\n", s.time.Seconds()*1e3, s.name)
		}
	}
	dir := filepath.Join(parts.Root, "build", "bench")
	if o.publish != "" {
		dir = filepath.Join(o.publish, imageDir)
	}
	caption := fmt.Sprintf("Shares by the medians of %d exchanges."+
		" Guest with 1 GiB and 2 CPUs, Linux %s, under %s.",
		o.rounds, parts.Kernel(o.series).Version, strings.ToUpper(string(parts.Accel)))
	svg, err := drawTrace(medians(all), caption)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "exchange.svg"), svg)
}

func (p *pair) spans(ctx context.Context) ([]span, error) {
	log, err := p.destination.vm.Guest.Do(ctx, ctl.Request{Op: ctl.OpOutput, Name: "agent"})
	if err != nil {
		return nil, fmt.Errorf("ask for the agent's log: %w", err)
	}
	r, err := parseReported(log.Output)
	if err != nil {
		return nil, err
	}
	return spans(p.figures.Hints, r), nil
}

// medians takes the median of each span.
func medians(all [][]span) (m []span) {
	for i := range all[0] {
		var v []float64
		for _, one := range all {
			v = append(v, float64(one[i].time))
		}
		m = append(m, span{all[0][i].name, time.Duration(newSpread(v).Median)})
	}
	return m
}

// drawTrace draws each span as a bar that begins where the one before ends. The text has
// the shares: the times are those of one machine.
func drawTrace(all []span, caption string) ([]byte, error) {
	var total time.Duration
	for _, s := range all {
		total += s.time
	}
	if total == 0 {
		return nil, errors.New("draw the exchange: no figures")
	}
	height := headHeight + barPitch*vg.Length(len(all)) + noteHeight
	canvas := vgsvg.New(chartWidth, height)
	d := &drawing{draw.New(canvas), height}
	d.rect(0, 0, chartWidth, height, paper)
	d.outline(0.5, 0.5, chartWidth-1, height-1)
	d.write("Where the time of an exchange goes", chartMargin, 21, 13, ink, true)
	d.write(caption, chartMargin, 38, 8.5, faintInk, false)
	const names = 230
	x := chartMargin + vg.Length(names)
	width := chartWidth - x - chartMargin - labelWidth
	var before time.Duration
	for i, s := range all {
		mid := headHeight + barPitch*vg.Length(i) + barHeight/2
		at := func(t time.Duration) vg.Length {
			return width * vg.Length(float64(t)/float64(total))
		}
		d.write(s.name, chartMargin, mid, 9, ink, false)
		d.rect(x, mid-barHeight/2, width, barHeight, track)
		d.rect(x+at(before), mid-barHeight/2, max(at(s.time), 0.75), barHeight, barColor(fbpp))
		d.write(fmt.Sprintf("%.0f %%", 100*float64(s.time)/float64(total)), x+width+6, mid, 9, ink, false)
		before += s.time
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("draw the exchange: %w", err)
	}
	return portable(out.Bytes()), nil
}
