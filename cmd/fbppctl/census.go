// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/control"
)

// census runs the commands census and estimate.
func (o options) census(ctx context.Context, out io.Writer) error {
	c, err := control.NewClient(o.path).Census(ctx)
	if err != nil {
		return err
	}
	switch {
	case o.command == "estimate" && o.asJSON:
		return json.NewEncoder(out).Encode(c.Estimate(o.links...))
	case o.command == "estimate":
		return o.printEstimate(out, c)
	case o.asJSON:
		return json.NewEncoder(out).Encode(c)
	}
	return printCensus(out, c)
}

// links are bandwidths in Gbit/s.
type links []float64

// Set implements flag.Value.
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

// String implements flag.Value.
func (l *links) String() string {
	var words []string
	for _, gbit := range *l {
		words = append(words, strconv.FormatFloat(gbit, 'g', -1, 64))
	}
	return strings.Join(words, ",")
}

func (o options) printEstimate(out io.Writer, c *census.Census) error {
	fmt.Fprintf(out, "%.1f MiB of memory, of which the guest has touched %.1f MiB.\n",
		mib(c.MemoryBytes), mib(c.TouchedBytes))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "policy\tMiB\tlast MiB\t")
	for _, gbit := range o.links {
		fmt.Fprintf(w, "at %v Gbit/s\t", gbit)
	}
	fmt.Fprintln(w)
	for _, e := range c.Estimate(o.links...) {
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
	_, err := fmt.Fprintf(out, "The kernel was found in %d ms, and its pages counted in %d ms.\n",
		c.FoundUS/1000, c.CountedUS/1000)
	return err
}

// pagesMiB returns the size of n pages of 4 KiB in MiB.
func pagesMiB(n uint64) float64 { return float64(n) / 256 }
