// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

// historyCommand shows the outcomes of the newest migrations, one per line, the newest
// last.
func historyCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "history", Short: "show what became of the newest migrations", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.ask(cmd.Context(), func(ctx context.Context, c *control.Client, _ func()) error {
				all, err := c.History(ctx)
				if err != nil {
					return err
				}
				lines := make([]any, len(all))
				for i := range all {
					lines[i] = all[i]
				}
				return t.showAll(cmd.OutOrStdout(), lines, func(out io.Writer) error {
					return printHistory(out, all)
				})
			})
		},
	}
}

func printHistory(out io.Writer, all []device.Migration) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ended\tmigration\thints\tskipped\tsent\ttotal\tdowntime\torder\thybrid\tdropped")
	for _, m := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f MiB\t%.1f MiB\t%d ms\t%d ms\t%s\t%s\t%.1f MiB\n",
			m.Ended.Format(time.RFC3339), m.Result, m.Hints, mib(m.SkippedBytes),
			mib(m.TransferredBytes), m.TotalMS, m.DowntimeMS, orDash(m.Order), orDash(m.Hybrid),
			mib(m.DroppedBytes))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the history: %w", err)
	}
	return nil
}

// orDash shows what was not said as a dash.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
