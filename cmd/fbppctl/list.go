// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
)

// listed is a line of list --json.
type listed struct {
	VM          string         `json:"vm"`
	ControlPath string         `json:"control_path"`
	Status      *device.Status `json:"status,omitempty"`
	Error       string         `json:"error,omitempty"` // why there is no status
}

func listCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "show the virtual machines of this host that have an fbppd",
		Args: cli.NoArgs,
		Long: `list shows the virtual machines of this host that have an fbppd, a line each. The exit
status is 1 where one of them does not answer.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.ofHost(); err != nil {
				return err
			}
			all, err := t.host.ask(cmd.Context(), t.timeout)
			if err != nil {
				return err
			}
			if err := t.printList(cmd.OutOrStdout(), all); err != nil {
				return fmt.Errorf("print the list: %w", err)
			}
			return silent(all)
		},
	}
}

// silent is the error for the machines that said nothing.
func silent(all []machine) error {
	n := 0
	for _, m := range all {
		if m.err != nil {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d did not answer", n, len(all))
}

func (t *target) printList(out io.Writer, all []machine) error {
	var lines []any
	for i, m := range all {
		line := listed{VM: m.name, ControlPath: t.host.socket(m.name)}
		if m.err != nil {
			line.Error = m.err.Error()
		} else {
			line.Status = &all[i].status
		}
		lines = append(lines, line)
	}
	return t.showAll(out, lines, func(out io.Writer) error { return printTable(out, all) })
}

func printTable(out io.Writer, all []machine) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "vm\thints\tfrontend\tdriver\tlast migration")
	for _, m := range all {
		if m.err != nil {
			fmt.Fprintf(w, "%s\t-\t-\t-\t%v\n", m.name, m.err)
			continue
		}
		last := "none"
		if e := m.status.Migration; e != nil {
			last = e.Result + ", skipped " + skipped(e)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.name,
			choose(m.status.Enabled, "enabled", "disabled"),
			choose(m.status.Connected, "connected", "none"), m.status.DriverState, last)
	}
	return w.Flush()
}
