// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/control"
)

// census shows what the guest uses its memory for.
func (o options) census(ctx context.Context, out io.Writer) error {
	c, err := control.NewClient(o.path).Census(ctx)
	if err != nil {
		return err
	}
	if o.asJSON {
		return json.NewEncoder(out).Encode(c)
	}
	return printCensus(out, c)
}

func printCensus(out io.Writer, c *census.Census) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "Linux %s\n", c.Release)
	if c.ContentMatters {
		fmt.Fprintln(out, "The guest relies on what is in its free pages: no migration leaves them out.")
	}
	row := func(node, zone string, of census.Class) {
		fmt.Fprintf(w, "%s\t%s\t%v\t%.1f\t%.1f\t%.1f\t%.1f\t\n", node, zone, of.Class,
			pagesMiB(of.Pages), pagesMiB(of.Mapped), pagesMiB(of.Dirty), pagesMiB(of.Clean))
	}
	fmt.Fprintln(w, "node\tzone\tclass\tMiB\tmapped\tdirty\tclean\t")
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
	_, err := fmt.Fprintf(out, "The kernel was found in %d ms, and its pages counted in %d ms.\n",
		c.FoundUS/1000, c.CountedUS/1000)
	return err
}

// pagesMiB is the size of a number of 4 KiB pages.
func pagesMiB(n uint64) float64 { return float64(n) / 256 }
