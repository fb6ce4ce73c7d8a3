// SPDX-License-Identifier: Apache-2.0

// Command fbpp-conform checks whether a vhost-user backend or a virtio driver
// keeps the rules of its specification, and prints a verdict for each rule.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	out := cli.NewOutput(os.Stdout)
	status, err := run(ctx, os.Args[1:], out)
	if err == nil {
		err = out.Err()
	}
	if err != nil {
		status = report.ExitError
		fmt.Fprintf(os.Stderr, "fbpp-conform: %v\n", err)
		if errors.As(err, new(cli.UsageError)) {
			fmt.Fprintln(os.Stderr, "Try 'fbpp-conform --help'.")
		}
	}
	os.Exit(status)
}

// about is what --help and the manual page begin with.
const about = `fbpp-conform checks whether a vhost-user backend or a virtio driver keeps the rules
of its specification, and prints a verdict for each rule.

Exit status: 0 if every rule that must be kept was kept or does not apply, 1 if one was
broken, 2 if the suite could not run or the command line is wrong.`

// suite is a command that runs a suite.
type suite struct {
	name, short, long string
	// flags adds the suite's own flags. The function that it returns makes the
	// suite; call it after the flags were parsed.
	flags func(*pflag.FlagSet) func() (report.Suite, error)
	// rules returns all rules that the suite can check, whatever the flags.
	rules func() []report.Rule
}

func suites() []suite { return []suite{backendSuite(), driverSuite()} }

// newRoot returns the program's commands. A suite that ran sets status.
func newRoot(status *int) *cobra.Command {
	root := &cobra.Command{
		Use:   "fbpp-conform",
		Short: "checks vhost-user backends and virtio drivers",
		Long:  about,
	}
	for _, s := range suites() {
		root.AddCommand(s.command(status))
	}
	root.AddCommand(&cobra.Command{
		Use: "rules", Short: "list the rules of both suites", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return listRules(cmd.OutOrStdout()) },
	})
	return root
}

// run returns the exit status. With an error that is report.ExitError.
func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	status := report.ExitKept
	err := cli.Execute(ctx, newRoot(&status), args, out)
	if err != nil && !errors.Is(err, cli.ErrDone) {
		return report.ExitError, err
	}
	return status, nil
}

// command returns the command that runs the suite. It sets status.
func (s suite) command(status *int) *cobra.Command {
	cmd := &cobra.Command{Use: s.name, Short: s.short, Long: s.long, Args: cli.NoArgs}
	newSuite := s.flags(cmd.Flags())
	var o output
	o.flags(cmd.Flags())
	patterns := cmd.Flags().String("rule", "",
		"check only rules whose names match one of `PATTERNS`, separated by commas (VHU-LOG-*)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		peer, err := newSuite()
		if err != nil {
			return err
		}
		sinks, closeSinks, err := o.sinks(cmd.OutOrStdout())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeSinks()) }()
		sum, err := report.Run(cmd.Context(), s.name, peer, split(*patterns), sinks...)
		if err == nil {
			*status = sum.ExitStatus()
		}
		return err
	}
	return cmd
}

func split(patterns string) []string {
	return strings.FieldsFunc(patterns, func(r rune) bool { return r == ',' || r == ' ' })
}
