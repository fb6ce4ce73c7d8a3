// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/control"
)

func censusCommand(t *target) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use: "census", Short: "show what the guest uses its memory for",
		Args: cli.NoArgs,
		Long: `census shows what the guest uses its memory for, as seen from the host. With --from=guest
the guest counts, by a program of the kind census that fbppctl program push has shipped.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			take := (*control.Client).Census
			switch from {
			case "host":
			case "guest":
				take = (*control.Client).GuestCensus
			default:
				return cli.Usagef("--from %q is neither host nor guest", from)
			}
			return t.census(cmd, take, func(c *census.Census) error {
				return t.show(cmd.OutOrStdout(), c, func(out io.Writer) error { return printCensus(out, c) })
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "host", "`WHO` counts: the host, or the guest")
	return cmd
}

// census calls show with a census, for which it waits longer than for other answers.
func (t *target) census(
	cmd *cobra.Command, take func(*control.Client, context.Context) (*census.Census, error),
	show func(*census.Census) error,
) error {
	if !t.flags.Changed("timeout") {
		t.timeout = censusTimeout
	}
	return t.ask(cmd.Context(), func(ctx context.Context, c *control.Client, _ func()) error {
		result, err := take(c, ctx)
		if err != nil {
			return err
		}
		return show(result)
	})
}

func printCensus(out io.Writer, c *census.Census) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "Linux %s\n", c.Release)
	if c.ContentMatters {
		fmt.Fprintln(out, "The guest relies on what is in its free pages: no migration leaves them out.")
	}
	row := func(node, zone string, of census.Class) {
		fmt.Fprintf(w, "%s\t%s\t%v\t", node, zone, of.Class)
		for _, n := range []uint64{of.Pages, of.Mapped, of.Dirty, of.Clean, of.Active, of.Cold} {
			fmt.Fprintf(w, "%.1f\t", pagesMiB(n))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "node\tzone\tclass\tMiB\tmapped\tdirty\tclean\tactive\tcold\t")
	for _, z := range c.Zones {
		for _, of := range z.Classes {
			row(fmt.Sprint(z.Node), z.Name, of)
		}
	}
	for _, of := range c.Classes {
		row("all", "", of)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the census: %w", err)
	}
	if p := c.Program; p != nil {
		_, err := fmt.Fprintf(out, "The guest has counted in %d ms, by %d runs of %.12s, "+
			"the longest of %d µs.\n", c.CountedUS/1000, p.Runs, p.Digest, p.RunMaxUS)
		return err
	}
	_, err := fmt.Fprintf(out, "The kernel was found in %d ms, and its pages counted in %d ms.\n",
		c.FoundUS/1000, c.CountedUS/1000)
	return err
}

// pagesMiB returns the size of n pages of 4 KiB in MiB.
func pagesMiB(n uint64) float64 { return float64(n) / 256 }
