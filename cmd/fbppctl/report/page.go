// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
)

//go:embed page.html.tmpl
var pageSource string

// Line is what the migrations of one method and bandwidth have in common: medians of those
// that completed.
type Line struct {
	Method      Method
	Gbit        float64
	Tried, Done int
	Hints       string // of the newest
	Skipped     uint64 // bytes
	Transferred uint64 // bytes
	TotalMS     uint64
	DowntimeMS  uint64
	SetupMS     uint64
	ExchangeUS  uint64
}

// Lines summarises what was measured, by bandwidth and then by method.
func (r *Report) Lines() []Line {
	var bandwidths []float64
	for _, m := range r.Measured {
		if !slices.Contains(bandwidths, m.Gbit) {
			bandwidths = append(bandwidths, m.Gbit)
		}
	}
	var lines []Line
	for _, gbit := range bandwidths {
		for _, method := range Methods() {
			if l := r.line(method, gbit); l.Tried > 0 {
				lines = append(lines, l)
			}
		}
	}
	return lines
}

func (r *Report) line(method Method, gbit float64) Line {
	l := Line{Method: method, Gbit: gbit}
	var done []Migration
	for _, m := range r.Measured {
		if m.Method != method || m.Gbit != gbit {
			continue
		}
		l.Tried++
		l.Hints = m.Hints
		if m.Result == "completed" {
			done = append(done, m)
		}
	}
	if l.Done = len(done); l.Done == 0 {
		return l
	}
	l.Skipped = median(done, func(m Migration) uint64 { return m.SkippedBytes })
	l.Transferred = median(done, func(m Migration) uint64 { return m.TransferredBytes })
	l.TotalMS = median(done, func(m Migration) uint64 { return m.TotalMS })
	l.DowntimeMS = median(done, func(m Migration) uint64 { return m.DowntimeMS })
	l.SetupMS = median(done, func(m Migration) uint64 { return m.SetupMS })
	l.ExchangeUS = median(done, func(m Migration) uint64 { return m.ExchangeUS })
	return l
}

// median returns the middle of a figure, or the lower of the two in the middle.
func median(all []Migration, of func(Migration) uint64) uint64 {
	figures := make([]uint64, 0, len(all))
	for _, m := range all {
		figures = append(figures, of(m))
	}
	slices.Sort(figures)
	return figures[(len(figures)-1)/2]
}

// Row returns the report as a row of the table in README. Its author adds the number.
func (r *Report) Row() string {
	cell := func(method Method) string {
		l := r.line(method, 0)
		if l.Done == 0 {
			return "–"
		}
		return fmt.Sprintf("%s MiB, %s s", mib(l.Transferred), seconds(l.TotalMS))
	}
	return "| " + strings.Join([]string{
		r.Host.CPU, r.accelerator(), "Linux " + r.VM.Kernel, gib(r.VM.MemoryBytes) + " GiB",
		cell(Stock), cell(FreePageHint), cell(FBPP), "#",
	}, " | ") + " |"
}

// accelerator says how the VM is run, and how its written pages are found.
func (r *Report) accelerator() string {
	switch r.QEMU.Accelerator {
	case "kvm":
		return "KVM, " + r.QEMU.DirtyTracking
	case "tcg":
		return "TCG"
	}
	return "unknown"
}

// Page returns the report as one HTML page, which loads nothing.
func (r *Report) Page() ([]byte, error) {
	lines := r.Lines()
	var most, longest uint64 = 1, 1
	for _, l := range lines {
		most, longest = max(most, l.Transferred), max(longest, l.TotalMS)
	}
	share := func(of uint64) func(uint64) string {
		return func(v uint64) string { return fmt.Sprintf("%.1f", 100*float64(v)/float64(of)) }
	}
	t, err := template.New("page").Funcs(template.FuncMap{
		"mib": mib, "gib": gib, "seconds": seconds, "link": link, "join": strings.Join,
		"ofMost": share(most), "ofLongest": share(longest),
	}).Parse(pageSource)
	if err != nil {
		return nil, fmt.Errorf("write page: %w", err)
	}
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{
		"R": r, "Lines": lines, "Accelerator": r.accelerator(), "Row": r.Row(),
	})
	if err != nil {
		return nil, fmt.Errorf("write page: %w", err)
	}
	return out.Bytes(), nil
}

func mib(bytes uint64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }

func gib(bytes uint64) string { return fmt.Sprintf("%.3g", float64(bytes)/(1<<30)) }

func seconds(ms uint64) string { return fmt.Sprintf("%.2f", float64(ms)/1000) }

// link writes a bandwidth.
func link(gbit float64) string {
	if gbit == 0 {
		return "no limit"
	}
	return fmt.Sprintf("%g Gbit/s", gbit)
}
