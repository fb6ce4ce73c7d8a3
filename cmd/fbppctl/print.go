// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fbpp-project/fbpp/device"
)

// print writes a status for a person.
func print(out io.Writer, s device.Status) error {
	var b strings.Builder
	row := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", key, fmt.Sprintf(format, args...))
	}
	row("hints", "%s", choose(s.Enabled, "enabled", "disabled"))
	row("frontend", "%s", choose(s.Connected, "connected", "none"))
	row("driver", "%s", s.DriverState)
	if d := s.Driver; d != nil {
		row("guest", "%s", d.Release)
		if d.Reason != "" {
			row("reason", "%s", d.Reason)
		}
	}
	if s.Asking {
		row("request", "open")
	}
	if x := s.Last; x != nil {
		row("last", "%s, %s", x.Status, x.Ended.Format(time.RFC3339))
		if x.Why != "" {
			row("why", "%s", x.Why)
		}
		if x.Status == "ok" {
			t := x.Times
			row("free", "%.1f MiB in %d ranges from %d records%s", float64(x.FreeBytes)/(1<<20), x.Ranges, x.Records,
				choose(x.Truncated, ", truncated", ""))
			row("time", "wakeup %d µs, walk %d µs, transfer %d µs, decode %d µs", t.Wakeup, t.Walk, t.Transfer, t.Decode)
			row("lock", "longest hold %d µs, %d holds", t.HoldMax, t.Holds)
		}
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}

func choose(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}
