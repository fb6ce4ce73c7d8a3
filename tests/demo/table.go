// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// print shows the results.
func (r *results) print(out *screen) {
	off, on := r.Runs[0], r.Runs[len(r.Runs)-1]
	out.line("\nLinux %s, %s, 2 CPUs, %s", on.release, gib(r.plan.guestMiB), strings.ToUpper(r.accel))
	out.line("")
	rows := [][]string{
		{"hints", "transferred", "setup", "total", "downtime", "pages skipped", "ratio"},
	}
	for _, run := range r.Runs {
		rows = append(rows, []string{
			run.Method.hints(), size(run.Transferred), ms(run.SetupMS), ms(run.TotalMS), ms(run.DowntimeMS),
			thousands(run.Skipped), fmt.Sprintf("%.1f×", float64(off.Transferred)/float64(run.Transferred)),
		})
	}
	rows = append(rows, []string{"floor", size(r.FloorBytes), "", "", "", "",
		fmt.Sprintf("%.1f×", float64(off.Transferred)/float64(r.FloorBytes))})
	for _, line := range table(rows) {
		out.line("  %s", line)
	}
	f := r.Floor
	out.line("\nThe floor is the least that could be sent:"+
		" of %s pages that were not free, %s × %d B,\n"+
		"the others, which are zero, × %d B, and %s of device state. Hints on sent %s.",
		thousands(f.UsedPages), thousands(f.UsedPages-f.ZeroPages), vm.PageCost, vm.ZeroPageCost,
		size(f.DeviceState), r.distance())
	if x := on.Exchange; x != nil {
		out.line("\nThe exchange with the guest took %s of the setup (the published work: %s):",
			us(x.Total), us(exchangeLimit))
		var phases strings.Builder
		for _, p := range x.Phases {
			fmt.Fprintf(&phases, "%s %s, ", p.Name, us(p.Time))
		}
		out.line("  %sclear %s, waiting for a CPU %s.", &phases, us(x.Clear), us(x.Wait))
		out.line("  Before it, arming the dirty log took %s. The guest held a zone lock for at most %s.",
			us(x.Arm), us(x.HoldMax))
	}
	out.line("\nThe guests on their destinations:")
	for _, run := range r.Runs {
		i := run.Integrity
		out.line("  hints %-3s  counted to %s before and is still counting, at %s;"+
			" of %s pages it verified, %d do not match",
			run.Method.hints(), thousands(int64(i.CountBefore)), thousands(int64(i.CountAfter)),
			thousands(int64(i.VerifiedPages)), i.Mismatches)
	}
}

// distance says how far the fbpp run is from the floor. It can be below. The guest's free
// pages are counted a moment before the question, and the agent then makes the kernel drain
// the per-CPU lists, which adds free pages.
func (r *results) distance() string {
	if r.AboveFloor < 0 {
		return fmt.Sprintf("%.1f %% less than that,\nas more was free than had been counted",
			-r.AboveFloor*100)
	}
	return fmt.Sprintf("%.1f %% more than that", r.AboveFloor*100)
}

// table aligns rows: the first column to the left, the others to the right.
func table(rows [][]string) []string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var lines []string
	for n, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString(cell + pad)
			} else {
				b.WriteString("   " + pad + cell)
			}
		}
		line := strings.TrimRight(b.String(), " ")
		lines = append(lines, line)
		if n == 0 {
			lines = append(lines, strings.Repeat("─", utf8.RuneCountInString(line)))
		}
	}
	return lines
}

// size writes a number of bytes for people.
func size(bytes int64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
}

func ms(n int64) string { return fmt.Sprintf("%s ms", thousands(n)) }

func us(n int64) string { return fmt.Sprintf("%.1f ms", float64(n)/1000) }

// thousands writes a number with its digits in groups.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
