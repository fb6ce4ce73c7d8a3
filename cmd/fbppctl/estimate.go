// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/control"
)

func estimateCommand(t *target) *cobra.Command {
	at := links{1, 10, 25}
	cmd := &cobra.Command{
		Use: "estimate", Short: "show what a migration would send now, by what it leaves out",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.census(cmd, (*control.Client).Census, func(c *census.Census) error {
				all := c.Estimate(at...)
				return t.show(cmd.OutOrStdout(), all, func(out io.Writer) error {
					return printEstimate(out, c, all, at)
				})
			})
		},
	}
	cmd.Flags().Var(&at, "bandwidth", "what estimate is made for, in `Gbit/s`, separated by commas")
	return cmd
}

// links are bandwidths in Gbit/s.
type links []float64

// Set implements pflag.Value.
func (l *links) Set(list string) error {
	*l = nil
	for word := range strings.SplitSeq(list, ",") {
		gbit, err := strconv.ParseFloat(word, 64)
		if err != nil || !(gbit > 0 && gbit <= 1e6) {
			return fmt.Errorf("%q is no bandwidth in Gbit/s, such as 10 or 2.5", word)
		}
		*l = append(*l, gbit)
	}
	return nil
}

// String implements pflag.Value.
func (l *links) String() string {
	var words []string
	for _, gbit := range *l {
		words = append(words, strconv.FormatFloat(gbit, 'g', -1, 64))
	}
	return strings.Join(words, ",")
}

// Type implements pflag.Value.
func (*links) Type() string { return "Gbit/s" }

func printEstimate(out io.Writer, c *census.Census, all []census.Estimate, at links) error {
	fmt.Fprintf(out, "%.1f MiB of memory, of which the guest has touched %.1f MiB.\n",
		mib(c.MemoryBytes), mib(c.TouchedBytes))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "policy\tMiB\tlast MiB\t")
	for _, gbit := range at {
		fmt.Fprintf(w, "at %v Gbit/s\t", gbit)
	}
	fmt.Fprintln(w)
	for _, e := range all {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t", e.Policy, mib(e.Bytes), mib(e.LastBytes))
		for _, t := range e.Times {
			fmt.Fprintf(w, "%.2f s\t", t.Seconds)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the estimate: %w", err)
	}
	_, err := fmt.Fprintln(out, "What the guest writes meanwhile comes on top.")
	return err
}
