// SPDX-License-Identifier: Apache-2.0

// Command fbpp-conform checks whether a vhost-user backend or a virtio driver
// keeps the rules of its specification, and prints a verdict for each rule.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser/program/version"
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

const usage = `usage: fbpp-conform COMMAND [options]

commands:
  backend   check the vhost-user backend that listens on a socket
  driver    be the device that a driver is checked against
  rules     list the rules of both suites

'fbpp-conform COMMAND --help' lists the options. Exit status: 0 if every rule that
must be kept was kept or does not apply, 1 if one was broken, 2 if the suite could not run.
`

// suite is a command that runs a suite.
type suite struct {
	name string
	// flags adds the suite's own flags. The function that it returns makes the
	// suite; call it after the flags were parsed.
	flags func(*flag.FlagSet) func() (report.Suite, error)
	// rules returns all rules that the suite can check, whatever the flags.
	rules func() []report.Rule
}

func suites() []suite { return []suite{backendSuite(), driverSuite()} }

// run returns the exit status. With an error that is report.ExitError.
func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	if len(args) == 0 {
		return report.ExitError, cli.Usagef("no command")
	}
	name, rest := args[0], args[1:]
	for _, s := range suites() {
		if s.name == name {
			return s.run(ctx, rest, out)
		}
	}
	print := map[string]func() error{
		"rules": func() error { return listRules(out) },
		"help":  func() error { _, err := fmt.Fprint(out, usage); return err },
		"--version": func() error {
			_, err := fmt.Fprintln(out, version.Line("fbpp-conform"))
			return err
		},
	}
	switch name {
	case "-h", "-help", "--help":
		name = "help"
	case "-version":
		name = "--version"
	}
	f, ok := print[name]
	if !ok {
		return report.ExitError, cli.Usagef("unknown command %q", name)
	}
	if len(rest) > 0 {
		return report.ExitError, cli.Usagef("unexpected argument %q", rest[0])
	}
	if err := f(); err != nil {
		return report.ExitError, err
	}
	return report.ExitKept, nil
}

func (s suite) run(ctx context.Context, args []string, out io.Writer) (_ int, err error) {
	fs := flag.NewFlagSet("fbpp-conform "+s.name, flag.ContinueOnError)
	newSuite := s.flags(fs)
	var o output
	o.flags(fs)
	patterns := fs.String("rule", "",
		"check only rules whose names match one of `PATTERNS`, separated by commas (VHU-LOG-*)")
	if err := cli.Parse(fs, args, out); errors.Is(err, cli.ErrDone) {
		return report.ExitKept, nil
	} else if err != nil {
		return report.ExitError, err
	}
	if err := cli.NoArgs(fs); err != nil {
		return report.ExitError, err
	}
	peer, err := newSuite()
	if err != nil {
		return report.ExitError, err
	}
	sinks, closeSinks, err := o.sinks(out)
	if err != nil {
		return report.ExitError, err
	}
	defer func() { err = errors.Join(err, closeSinks()) }()
	sum, err := report.Run(ctx, s.name, peer, split(*patterns), sinks...)
	if err != nil {
		return report.ExitError, err
	}
	return sum.ExitStatus(), nil
}

func split(patterns string) []string {
	return strings.FieldsFunc(patterns, func(r rune) bool { return r == ',' || r == ' ' })
}
