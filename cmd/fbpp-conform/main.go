// SPDX-License-Identifier: Apache-2.0

// Command fbpp-conform checks whether a vhost-user backend or a virtio driver
// keeps the rules of its specification, and says of each rule what came of it.
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

	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	status, err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "fbpp-conform: %v\n", err)
		if errors.As(err, new(usageError)) {
			fmt.Fprintln(os.Stderr, "Try 'fbpp-conform --help'.")
		}
	}
	os.Exit(status)
}

// usageError is a wrong command line.
type usageError struct{ error }

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
	// flags adds the suite's own flags, and returns what makes the suite once
	// they have been read.
	flags func(*flag.FlagSet) func() (report.Suite, error)
	// rules are all that the suite can check, whatever the flags.
	rules func() []report.Rule
}

func suites() []suite { return []suite{backendSuite(), driverSuite()} }

// run returns the exit status. With an error it is report.ExitError, but for a
// plea for help.
func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	if len(args) == 0 {
		return report.ExitError, usageError{errors.New("no command")}
	}
	switch name := args[0]; name {
	case "-h", "-help", "--help", "help":
		_, err := fmt.Fprint(out, usage)
		return report.ExitKept, err
	case "rules":
		return report.ExitKept, listRules(out)
	default:
		for _, s := range suites() {
			if s.name == name {
				return s.run(ctx, args[1:], out)
			}
		}
		return report.ExitError, usageError{fmt.Errorf("unknown command %q", name)}
	}
}

func (s suite) run(ctx context.Context, args []string, out io.Writer) (_ int, err error) {
	fs := flag.NewFlagSet(s.name, flag.ContinueOnError)
	fs.SetOutput(out)
	newSuite := s.flags(fs)
	var o output
	o.flags(fs)
	patterns := fs.String("rule", "", "check only rules whose names match one of `PATTERNS`, separated by commas (VHU-LOG-*)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return report.ExitKept, err
		}
		return report.ExitError, usageError{err}
	}
	if fs.NArg() > 0 {
		return report.ExitError, usageError{fmt.Errorf("unexpected argument %q", fs.Arg(0))}
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
