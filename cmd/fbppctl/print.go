// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/observer"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// print writes a status for a person.
func print(out io.Writer, s device.Status) error {
	var b strings.Builder
	row := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", key, fmt.Sprintf(format, args...))
	}
	row("hints", "%s", choose(s.Enabled, "enabled", "disabled"))
	row("cache", "%s", cacheLine(s))
	row("frontend", "%s", choose(s.Connected, "connected", "none"))
	row("driver", "%s%s", s.DriverState,
		choose(s.Driver != nil && s.Driver.Port, ", by the serial port", ""))
	if d := s.Driver; d != nil {
		row("guest", "%s", d.Release)
		if d.Reason != "" && s.DriverState == "refuses" { // else it is about the cache
			row("reason", "%s", d.Reason)
		}
	}
	row("sources", "%s", choose(len(s.Sources) > 0, strings.Join(s.Sources, ", "), "none"))
	if k := s.Kernel; k != nil {
		row("kernel", "%s", kernel(k))
	}
	if s.Asking {
		row("request", "open")
	}
	if m := s.Migration; m != nil {
		row("migration", "%s, %s", m.Result, m.Ended.Format(time.RFC3339))
		row("skipped", "%s", skipped(m))
	}
	if x := s.Last; x != nil {
		row("request", "%s, %s", x.Status, x.Ended.Format(time.RFC3339))
		if x.Why != "" {
			row("why", "%s", x.Why)
		}
		if x.Status == protocol.AnswerOK.String() {
			row("reported", "%.1f MiB in %d ranges from %d records%s", mib(x.FreeBytes), x.Ranges,
				x.Records, choose(x.Truncated, ", truncated", ""))
			if x.OrderSource != "" {
				row("order", "%.1f MiB first, %.1f MiB last, by %s", mib(x.HotBytes), mib(x.ColdBytes),
					x.OrderSource)
			}
			if x.DroppedBytes > 0 {
				row("dropped", "%.1f MiB of cold cache, by the guest", mib(x.DroppedBytes))
			}
			var phases, details []string
			for _, p := range x.Phases {
				phases = append(phases, fmt.Sprintf("%s %d µs", p.Name, p.Microseconds))
			}
			for _, d := range x.Details {
				details = append(details, fmt.Sprintf("%s %d", d.Name, d.Value))
			}
			row("time", "%s", strings.Join(phases, ", "))
			if len(details) > 0 {
				row("details", "%s", strings.Join(details, ", "))
			}
		}
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}

// kernel describes what the host knows of the guest's kernel.
func kernel(k *observer.Status) string {
	switch {
	case k.Release == "" && k.Why == "":
		return "not looked for yet"
	case k.Release == "":
		return k.Why
	case k.Why != "":
		return k.Release + ": " + k.Why
	}
	return k.Release
}

// skipped describes what a migration left out. A migration that did not complete
// counts as nothing skipped.
func skipped(m *device.Migration) string {
	switch {
	case m.Hints != protocol.HintOK.String():
		return "nothing: " + m.Hints
	case m.Result != protocol.MigrationCompleted.String():
		return "nothing: the migration did not complete"
	}
	return fmt.Sprintf("%.1f MiB, %.1f MiB sent in %d ms",
		mib(m.SkippedBytes), mib(m.TransferredBytes), m.TotalMS)
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

func choose(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}
