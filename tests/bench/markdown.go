// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// report is all that the Markdown table and the page show.
type report struct {
	*results
	Rows    []row
	Targets []target
	Planned int // migrations
	Done    int // of these, with success or without
}

func newReport(r *results, cases []planned) *report {
	rows := summarize(cases, r.Records)
	rep := &report{results: r, Rows: rows, Targets: targets(rows, r.Origin.Accel == string(vm.TCG))}
	for _, run := range schedule(cases) {
		rep.Planned++
		if slices.ContainsFunc(r.Records, func(rec record) bool { return rec.run == run }) {
			rep.Done++
		}
	}
	return rep
}

// failures lists what went wrong, a line each.
func (r *report) failures() []string {
	var all []string
	for _, row := range r.Rows {
		for _, f := range row.Failures {
			all = append(all, fmt.Sprintf("%s: %s", row.benchCase, f))
		}
	}
	return all
}

// reason says in a line why a record is not sound.
func (r *record) reason() string {
	if r.Error == "" {
		return fmt.Sprintf("round %d: the guest found %d damaged pages", r.Round, r.Mismatched)
	}
	line, _, _ := strings.Cut(r.Error, "\n")
	return fmt.Sprintf("round %d: %s", r.Round, line)
}

// tables returns the rows in tables of their own: one for each link and
// transport.
func (r *report) tables() []table {
	var ts []table
	for _, row := range r.Rows {
		title := "Link: " + row.Link.String()
		if row.Transport != stream {
			title = "Transport: " + string(row.Transport)
		}
		if row.Transport.postcopies() {
			continue // they have a table of their own
		}
		if len(ts) == 0 || ts[len(ts)-1].Title != title {
			ts = append(ts, table{Title: title, Head: head()})
		}
		t := &ts[len(ts)-1]
		t.Rows = append(t.Rows, row.cells())
	}
	return ts
}

// table is a table of text.
type table struct {
	Title string
	Head  []string
	Rows  [][]string
}

func head() []string {
	return []string{"load", "method", "transferred", "floor", "of the floor", "total", "setup",
		"down", "interrupts off", "prepare", "normal pages", "zero pages", "skipped pages",
		"source CPU", "destination memory", "rounds"}
}

// cells writes a row for people. A case without any figures shows that.
func (r *row) cells() []string {
	if r.Total.N == 0 {
		why := "not run"
		if len(r.Failures) > 0 {
			why = "FAILED"
		}
		cells := []string{string(r.Load), string(r.Method), why}
		for len(cells) < len(head())-1 {
			cells = append(cells, "")
		}
		return append(cells, "0")
	}
	var floor, ratio, off string
	if r.Floor.N > 0 {
		floor, ratio = mib(r.Floor), times(r.AboveFloor)
	}
	if len(r.hints) > 0 {
		off = r.exchangeMS(func(r *record) int64 { return r.Exchange.Detail(vm.DetailHoldMax) })
	}
	rounds := fmt.Sprint(r.Total.N)
	if n := len(r.Failures); n > 0 {
		rounds += fmt.Sprintf(", %d FAILED", n)
	}
	return []string{
		string(r.Load), string(r.Method), mib(r.Transferred), floor, ratio, ms(r.Total), ms(r.Setup),
		ms(r.Downtime), off, ms(r.Prepare), count(r.Normal), count(r.Zero), count(r.Skipped),
		ms(r.SourceCPU), mib(r.Resident), rounds,
	}
}

// furtherTables compare postcopy with precopy, and show the parts of the exchange's time,
// in a table for each source.
func (r *report) furtherTables() []table {
	phase := func(name string) figureOf {
		return figureOf{name, func(r *record) int64 { return r.Exchange.Phase(name) }}
	}
	whole := []figureOf{
		{"exchange", func(r *record) int64 { return r.Exchange.Exchange }},
		{"arm", func(r *record) int64 { return r.Exchange.Arm }},
	}
	cleared := figureOf{"clear", func(r *record) int64 { return r.Exchange.Clear }}
	hold := figureOf{"interrupts off", func(r *record) int64 {
		return r.Exchange.Detail(vm.DetailHoldMax)
	}}
	ranges := figureOf{"ranges", func(r *record) int64 { return r.Exchange.Ranges }}
	detail := func(title, name string) figureOf {
		return figureOf{title, func(r *record) int64 { return r.Exchange.Detail(name) }}
	}
	tables := []table{
		r.exchangeTable("The exchange with the guest", fbpp,
			slices.Concat(whole, []figureOf{
				phase(source.PhaseWakeup), phase(source.PhaseWalk), phase(source.PhaseTransfer),
				phase(source.PhaseDecode), cleared, hold,
			}),
			[]figureOf{detail("holds", vm.DetailHolds), ranges}),
		r.exchangeTable("The look from the host", introspect,
			slices.Concat(whole, []figureOf{
				phase(source.PhaseFind), phase(source.PhaseScan), phase(source.PhasePeek),
				phase(source.PhaseSieve), cleared,
			}),
			[]figureOf{
				detail("struct pages", vm.DetailRead), detail("dropped blocks", vm.DetailDropped), ranges,
			}),
	}
	if t := r.postcopyTable(); len(t.Rows) > 0 {
		tables = append([]table{t}, tables...)
	}
	return tables
}

// figureOf is a figure of an exchange, and what it is called.
type figureOf struct {
	title string
	of    func(*record) int64
}

// exchangeTable has the rows of a method: times in microseconds, and counts.
func (r *report) exchangeTable(title string, m method, times, counts []figureOf) table {
	t := table{Title: title, Head: []string{"load"}}
	for _, f := range slices.Concat(times, counts) {
		t.Head = append(t.Head, f.title)
	}
	t.Head = append(t.Head, "clear per range")
	for i := range r.Rows {
		row := &r.Rows[i]
		if len(row.hints) == 0 || row.Method != m {
			continue
		}
		cells := []string{row.benchCase.String()}
		for _, f := range times {
			cells = append(cells, row.exchangeMS(f.of))
		}
		for _, f := range counts {
			cells = append(cells, count(row.exchange(f.of)))
		}
		t.Rows = append(t.Rows, append(cells, row.clearPerRange()))
	}
	return t
}

// exchangeMS writes a part of the exchange in milliseconds.
func (r *row) exchangeMS(part func(*record) int64) string {
	s := r.exchange(part)
	s.Median, s.Min, s.Max = s.Median/1000, s.Min/1000, s.Max/1000
	return figure(s, "%.2f", "ms")
}

// clearPerRange says how long QEMU needed for each range that it cleared.
func (r *row) clearPerRange() string {
	var v []float64
	for _, rec := range r.hints {
		if n := rec.Exchange.Ranges; n > 0 {
			v = append(v, float64(rec.Exchange.Clear*1000)/float64(n))
		}
	}
	if len(v) == 0 {
		return ""
	}
	return figure(newSpread(v), "%.0f", "ns")
}

// figure writes a median, and the spread where there is one.
func figure(s spread, format, unit string) string {
	text := fmt.Sprintf(format, s.Median)
	low, high := fmt.Sprintf(format, s.Min), fmt.Sprintf(format, s.Max)
	if low != high {
		text += fmt.Sprintf(" (%s–%s)", low, high)
	}
	return text + " " + unit
}

func ms(s spread) string { return figure(s, "%.0f", "ms") }

func mib(s spread) string {
	s.Median, s.Min, s.Max = s.Median/(1<<20), s.Min/(1<<20), s.Max/(1<<20)
	return figure(s, "%.0f", "MiB")
}

// times writes a share above the floor as a multiple of the floor.
func times(above spread) string {
	s := spread{Median: above.Median + 1, Min: above.Min + 1, Max: above.Max + 1}
	if s.Median < 2 {
		return figure(s, "%.3f", "×")
	}
	return figure(s, "%.1f", "×")
}

func count(s spread) string { return strings.TrimSpace(figure(s, "%.0f", "")) }

// markdown writes the whole report as Markdown.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks\n\n%s\n\n", r.summary())
	for _, f := range r.failures() {
		fmt.Fprintf(&b, "- **FAILED** %s\n", f)
	}
	b.WriteString("\n## Targets\n\n| target | seen | |\n|---|---|---|\n")
	for _, t := range r.Targets {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", t.Text, t.Seen, t.verdict())
	}
	b.WriteString("\n")
	for _, c := range r.charts() {
		fmt.Fprintf(&b, "![%s](%s)\n", c.Title, path.Join(imageDir, c.file()))
	}
	for _, t := range append(r.tables(), r.furtherTables()...) {
		fmt.Fprintf(&b, "\n## %s\n\n%s", t.Title, t.markdown())
	}
	fmt.Fprintf(&b, "\n%s\n", legend)
	return b.String()
}

// markdown writes the table without its title.
func (t table) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(t.Head, " | "), strings.Repeat("---|", len(t.Head)))
	for _, cells := range t.Rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.String()
}

func (t target) verdict() string {
	if t.Met {
		return "met"
	}
	return "MISSED"
}

// summary says what was run, and on which host.
func (r *report) summary() string {
	o := r.Origin
	text := fmt.Sprintf("%d of %d migrations of a guest with %d MiB and 2 CPUs, Linux %s,\n"+
		"%s under %s.\n", r.Done, r.Planned, r.Sizes.Guest, o.Kernel, o.QEMU, strings.ToUpper(o.Accel))
	text += fmt.Sprintf("Host: %s, %d CPUs, %d MiB, Linux %s.\n", o.CPU, o.CPUs, o.MemoryMB, o.Host)
	text += fmt.Sprintf("Source revision %s. Command: `%s`.", o.Commit, o.Command)
	if r.Sizes.Note != "" {
		text += " " + r.Sizes.Note
	}
	return text
}

// legend explains the columns.
const legend = `Figures are medians; where rounds differ, the lowest and the highest follow in
parentheses. The floor is the least that can be sent: 4,104 bytes for each page that is neither
free nor zero, 9 for each page of zeroes that is not free, and the state of the devices. For
runs that do not know the guest's free pages it is taken from fbpp's runs of the same load.
"Interrupts off" is the longest time that the guest held a zone's lock for the walk, by its own
clock. The phases are those of docs/window.md. "Prepare" is what a method costs before the
migration begins: to inflate a balloon, or to wait until the guest has reported its free pages.
"Source CPU" has the emulated processors in it. A balloon that would take what the load keeps is
left out.`
