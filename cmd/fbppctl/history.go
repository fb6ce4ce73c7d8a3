// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

// history shows the outcomes of the newest migrations, one per line, the newest
// last.
func (o options) history(ctx context.Context, out io.Writer) error {
	all, err := control.NewClient(o.path).History(ctx)
	if err != nil {
		return err
	}
	if !o.asJSON {
		return printHistory(out, all)
	}
	lines := json.NewEncoder(out)
	for _, m := range all {
		if err := lines.Encode(m); err != nil {
			return fmt.Errorf("print the history: %w", err)
		}
	}
	return nil
}

func printHistory(out io.Writer, all []device.Migration) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ended\tmigration\thints\tskipped\tsent\ttotal\tdowntime")
	for _, m := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f MiB\t%.1f MiB\t%d ms\t%d ms\n", m.Ended.Format(time.RFC3339),
			m.Result, m.Hints, mib(m.SkippedBytes), mib(m.TransferredBytes), m.TotalMS, m.DowntimeMS)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the history: %w", err)
	}
	return nil
}
