// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/cmd/fbppctl/localise"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/placement"
)

func localiseCommand(t *target) *cobra.Command {
	o := localise.Options{}
	cmd := &cobra.Command{
		Use: "localise", Short: "move a machine's memory to a NUMA node, what is hot first",
		Args: cli.NoArgs,
		Long: `localise moves the memory of a machine that runs to a NUMA node of this host: what is hot
first, what is cold last, and what the guest calls free not at all. Memory that the guest touches
for the first time comes from that node from then on. The node needs the room. It needs root.

When it is interrupted, what was not moved stays where it is. It can be given again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Node < 0 {
				return cli.Usagef("--node is required: the number of a NUMA node of this host")
			}
			return t.localise(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	cmd.Flags().IntVar(&o.Node, "node", -1, "`NUMBER` of the NUMA node")
	cli.Bytes(cmd.Flags(), &o.Bandwidth, "max-bandwidth", 0, 0, math.MaxInt64,
		"most `bytes` to move in a second, such as 500MiB; 0B is no limit")
	return cmd
}

func (t *target) localise(ctx context.Context, out io.Writer, o localise.Options) error {
	if !t.flags.Changed("timeout") {
		t.timeout = censusTimeout
	}
	var vm localise.VM
	err := t.ask(ctx, func(ctx context.Context, c *control.Client, _ func()) (err error) {
		vm.PID, vm.Memory, vm.Ranges, err = c.Placement(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if !t.asJSON {
		o.Progress = func(r localise.Result) {
			fmt.Fprintf(out, "%.1f MiB moved so far\n", mib(r.Total().Moved))
		}
	}
	result, err := localise.Run(ctx, vm, o)
	if err != nil && result.Total() == (localise.Counts{}) {
		return err
	}
	return errors.Join(err, t.show(out, result, func(out io.Writer) error {
		return printLocalised(out, result)
	}))
}

func printLocalised(out io.Writer, r *localise.Result) error {
	if r.Why != "" {
		fmt.Fprintf(out, "All of it counts as one class: %s\n", r.Why)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "class\tmoved MiB\tthere before\tcould not be moved\t")
	row := func(name string, c localise.Counts) {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t\n", name, mib(c.Moved), mib(c.There), mib(c.Left))
	}
	for _, class := range placement.Classes() {
		row(string(class), r.Classes[class])
	}
	row("all", r.Total())
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print what was moved: %w", err)
	}
	if r.OnDisk > 0 {
		fmt.Fprintf(out, "%.1f MiB are in files on a disk, and stay.\n", mib(r.OnDisk))
	}
	_, err := fmt.Fprintf(out, "To node %d, in %.1f s. %.1f MiB of the guest's memory are free.\n",
		r.Node, r.Seconds, mib(r.Free))
	return err
}
