// SPDX-License-Identifier: Apache-2.0

// Package cli has what the command lines of the project's programs have in common:
// options with two dashes, --help and --version, one line for an error, and the exit
// status, which is not 0 when output was lost.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrDone says that the command line asked for help, the version or the like, and
// that it was printed. The program has nothing else to do.
var ErrDone = errors.New("all that was asked for is printed")

// UsageError is a wrong command line.
type UsageError struct{ error }

// Unwrap makes errors.Is and errors.As look at the cause.
func (e UsageError) Unwrap() error { return e.error }

// Usagef makes a UsageError as fmt.Errorf makes an error.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// StatusError is an error with an exit status of its own.
type StatusError struct {
	error
	Status int
}

// Unwrap makes errors.Is and errors.As look at the cause.
func (e StatusError) Unwrap() error { return e.error }

// WithStatus gives err an exit status.
func WithStatus(status int, err error) error { return StatusError{err, status} }

// Main runs a program and ends the process. It prints an error. The exit status is
// 2 after a UsageError, that of a StatusError, 1 after any other error but ErrDone,
// and 0 otherwise. ctx ends at SIGINT and SIGTERM.
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

// report prints an error, which may have text of others, and returns the exit status for it.
func report(stderr io.Writer, name string, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(Printable(stderr), "%s: %v\n", name, err)
	if errors.As(err, new(UsageError)) {
		fmt.Fprintf(stderr, "Try '%s --help'.\n", name)
		return 2
	}
	if with := new(StatusError); errors.As(err, with) {
		return with.Status
	}
	return 1
}

// Output is a writer that remembers the first error, so that a program need not
// check each line that it prints. It is safe for concurrent use.
type Output struct {
	w  io.Writer
	mu sync.Mutex // guards err and serialises writes
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
