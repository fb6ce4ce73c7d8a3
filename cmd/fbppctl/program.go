// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

func programCommand(t *target) *cobra.Command {
	cmd := &cobra.Command{
		Use: "program", Short: "ship a program to the guest, and show what has become of it",
		Long: `program ships eBPF programs to the guest, whose owner's policy says which it takes, and
makes and checks the files that they are in.`,
	}
	cmd.AddCommand(
		pushCommand(t), programListCommand(t), programStatusCommand(t), withdrawCommand(t),
		keygenCommand(), signCommand(), verifyCommand(t),
	)
	return cmd
}

func pushCommand(t *target) *cobra.Command {
	at := driver.AtNow
	cmd := &cobra.Command{
		Use: "push FILE", Short: "offer the guest a program", Args: cobra.ExactArgs(1),
		Long: `push offers the guest a program: now and to each driver that comes later, or, with
--at=migration, when a migration begins. It replaces the one of its kind that was
pushed before. fbppd forgets it when it ends.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := bundle.Read(args[0])
			if err != nil {
				return err
			}
			return t.showPrograms(cmd, false,
				func(c *control.Client, ctx context.Context) (device.Status, error) {
					return c.PushProgram(ctx, b.Encode(), at)
				})
		},
	}
	cmd.Flags().Var(&at, "at", "when it is offered: now or migration")
	return cmd
}

func programListCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "show the programs, a line each", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.showPrograms(cmd, false, (*control.Client).Status)
		},
	}
}

func programStatusCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "show the programs, and why the guest refuses one", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.showPrograms(cmd, true, (*control.Client).Status)
		},
	}
}

func withdrawCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "withdraw NAME|DIGEST", Short: "have the guest take a program out of use",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.showPrograms(cmd, false,
				func(c *control.Client, ctx context.Context) (device.Status, error) {
					s, err := c.Status(ctx)
					if err != nil {
						return s, err
					}
					digest, err := named(s.Programs, args[0])
					if err != nil {
						return s, err
					}
					return c.WithdrawProgram(ctx, digest)
				})
		},
	}
}

// named returns the digest of the program with that name, or with a digest that begins so.
func named(all []driver.Program, name string) (digest string, err error) {
	if name == "" { // which a program of another host has
		return "", cli.Usagef("give the name of a program, or its digest")
	}
	for _, p := range all {
		if p.Name != name && !(len(name) >= 8 && strings.HasPrefix(p.Digest, name)) {
			continue
		}
		if digest != "" {
			return "", fmt.Errorf("%q names more than one program: give more of the digest", name)
		}
		digest = p.Digest
	}
	if digest == "" {
		return "", fmt.Errorf("there is no program %q: see fbppctl program list", name)
	}
	return digest, nil
}

// programs is what the commands print as JSON.
type programs struct {
	// Session is null where the driver takes no programs.
	Session  *driver.Session  `json:"program_session"`
	Programs []driver.Program `json:"programs"`
}

// showPrograms prints the programs of the status that ask returns.
func (t *target) showPrograms(
	cmd *cobra.Command, details bool,
	ask func(*control.Client, context.Context) (device.Status, error),
) error {
	return t.ask(cmd.Context(), func(ctx context.Context, c *control.Client, _ func()) error {
		s, err := ask(c, ctx)
		if err != nil {
			return err
		}
		return t.printPrograms(cmd.OutOrStdout(), s, details)
	})
}

func (t *target) printPrograms(out io.Writer, s device.Status, details bool) error {
	all := programs{s.Session, append([]driver.Program{}, s.Programs...)}
	return t.show(out, all, func(out io.Writer) error {
		if err := programTable(out, s); err != nil || !details {
			return err
		}
		return programDetails(out, s)
	})
}

func programTable(out io.Writer, s device.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "name\tkind\tversion\tdigest\tat\tstate\treason")
	for _, p := range s.Programs {
		fmt.Fprintf(w, "%s\t%s\t%d\t%.12s\t%s\t%s\t%s\n", choose(p.Name != "", p.Name, "-"), p.Kind,
			p.Version, p.Digest, choose(p.At != "", string(p.At), "-"),
			p.State+choose(p.WithdrawalPending, ", withdrawal pending", ""), p.Reason)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the programs: %w", err)
	}
	return nil
}

func programDetails(out io.Writer, s device.Status) error {
	var b strings.Builder
	switch {
	case s.Session == nil:
		fmt.Fprintln(&b, "\nThe guest takes no programs.")
	default:
		fmt.Fprintf(&b, "\nThe guest takes %s, of up to %d KiB; its session is %s.\n",
			strings.Join(s.Session.Kinds, ", "), s.Session.MaxSize>>10, s.Session.Nonce)
	}
	for _, p := range s.Programs {
		fmt.Fprintf(&b, "\n%s\n", p.Digest)
		if p.KeyID != "" && p.Expires != nil { // fbppd may have been taken over
			fmt.Fprintf(&b, "  signed by key %s, until %s\n", p.KeyID, p.Expires.Format(time.RFC3339))
		}
		if p.FetchUS+p.LoadUS > 0 {
			fmt.Fprintf(&b, "  fetched in %d µs, loaded in %d µs\n", p.FetchUS, p.LoadUS)
		}
		for line := range strings.Lines(p.Log) {
			fmt.Fprintf(&b, "  | %s\n", strings.TrimRight(line, "\n"))
		}
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return fmt.Errorf("print the programs: %w", err)
	}
	return nil
}
