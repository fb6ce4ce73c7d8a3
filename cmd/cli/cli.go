// SPDX-License-Identifier: Apache-2.0

// Package cli is what the command lines of the project's programs have in
// common: how they end, --help and --version, one line about what is wrong, and
// an exit status other than 0 when their output is lost.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/program/version"
)

// ErrDone says that the command line asked for help or the version, and that it
// was printed.
var ErrDone = errors.New("all that was asked for is printed")

// UsageError is a wrong command line.
type UsageError struct{ error }

// Unwrap implements the errors package's convention.
func (e UsageError) Unwrap() error { return e.error }

// Usagef makes a UsageError as fmt.Errorf makes an error.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// Main runs a program, and ends the process: with status 0, with 2 after a
// wrong command line, and with 1 after any other error, which it prints. ctx
// ends at SIGINT and SIGTERM.
func Main(name string, run func(ctx context.Context, args []string, stdout io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	out := NewOutput(os.Stdout)
	err := run(ctx, os.Args[1:], out)
	stop()
	if errors.Is(err, ErrDone) {
		err = nil
	}
	if err == nil {
		err = out.Err()
	}
	os.Exit(report(os.Stderr, name, err))
}

// report prints an error, and returns the exit status that it stands for.
func report(stderr io.Writer, name string, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	if errors.As(err, new(UsageError)) {
		fmt.Fprintf(stderr, "Try '%s --help'.\n", name)
		return 2
	}
	return 1
}

// Parse reads the flags. It adds --version, and prints that or the help to
// stdout: then it returns ErrDone. What is wrong is a UsageError, and is left to
// the caller to print.
func Parse(fs *flag.FlagSet, args []string, stdout io.Writer) error {
	showVersion := fs.Bool("version", false, "print the version and exit")
	fs.SetOutput(io.Discard) // else it prints what is wrong, and all flags after it
	err := fs.Parse(args)
	fs.SetOutput(stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.Usage()
		return ErrDone
	case err != nil:
		return UsageError{err}
	case *showVersion:
		fmt.Fprintln(stdout, version.Line(fs.Name()))
		return ErrDone
	}
	return nil
}

// NoArgs is a UsageError when words follow the flags.
func NoArgs(fs *flag.FlagSet) error {
	if fs.NArg() > 0 {
		return Usagef("unexpected argument %q", fs.Arg(0))
	}
	return nil
}

// Output passes on what is written, and remembers the first error: a program
// that prints need not look at each of its lines. It is safe for concurrent use.
type Output struct {
	w  io.Writer
	mu sync.Mutex // guards err, and keeps writes apart
	// err is the first error of w, after which nothing more is written.
	err error
}

// NewOutput returns an Output to w.
func NewOutput(w io.Writer) *Output { return &Output{w: w} }

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	if err != nil {
		o.err = fmt.Errorf("print: %w", err)
	}
	return n, o.err
}

// Err returns the first error of a Write, or nil.
func (o *Output) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
