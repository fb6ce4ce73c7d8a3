// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// Defaults of fbppctl sample. The guest looks at its memory after the interval.
const (
	sampleInterval = 10 * time.Second
	sampleLook     = 3 * time.Minute
)

func sampleCommand(t *target) *cobra.Command {
	var interval time.Duration
	cmd := &cobra.Command{
		Use: "sample", Short: "have the guest find which memory it uses",
		Args: cli.NoArgs,
		Long: `sample has the guest find which memory it uses while it is watched, by a program of the
kind sampler that fbppctl program push has shipped. A migration within the next ten minutes sends
that memory first, if it sends any first: a hybrid one, one by postcopy, a hand-over.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !t.flags.Changed("timeout") {
				t.timeout = interval + sampleLook
			}
			return t.ask(cmd.Context(), func(
				ctx context.Context, c *control.Client, _ func(),
			) error {
				found, err := c.SampleWorkingSet(ctx, interval)
				if err != nil {
					return err
				}
				return t.show(cmd.OutOrStdout(), found, func(out io.Writer) error {
					return printWorkingSet(out, found)
				})
			})
		},
	}
	cli.Duration(cmd.Flags(), &interval, "interval", sampleInterval, time.Millisecond,
		protocol.MaxSampleInterval, "`time` for which the guest is watched")
	return cmd
}

func printWorkingSet(out io.Writer, s *device.WorkingSet) error {
	const mib = 1 << 20
	_, err := fmt.Fprintf(out, "The guest has used %d of %d MiB in %v.\n"+
		"It has found that in %d ms, by %d runs of %.12s, the longest of %d µs.\n",
		s.HotBytes/mib, s.MemoryBytes/mib, time.Duration(s.IntervalMS)*time.Millisecond,
		s.TookUS/1000, s.Runs, s.Digest, s.RunMaxUS)
	return err
}
