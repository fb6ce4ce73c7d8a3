// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newFlags returns the flags of a program, and the variable of its only flag.
func newFlags() (*flag.FlagSet, *time.Duration) {
	fs := flag.NewFlagSet("program", flag.ContinueOnError)
	budget := new(time.Duration)
	const shortest, longest = 10 * time.Microsecond, time.Second
	Duration(fs, budget, "budget", time.Millisecond, shortest, longest, "longest `time`")
	return fs, budget
}

func TestParseSaysWhatIsWrongInOneLine(t *testing.T) {
	for _, tc := range []struct{ name, arg, want string }{
		{"no unit", "--budget=5", "a number with a unit, such as"},
		{"no number", "--budget=long", "a number with a unit, such as"},
		{"too little", "--budget=1ns", "between 10µs and 1s"},
		{"too much", "--budget=1m", "between 10µs and 1s"},
		{"an unknown flag", "--colour", "-colour"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs, _ := newFlags()
			var out strings.Builder
			err := Parse(fs, []string{tc.arg}, &out)
			if !errors.As(err, new(UsageError)) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want a usage error with %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") || out.Len() > 0 {
				t.Errorf("more than a line: %q, and printed %q", err, out.String())
			}
		})
	}
}

func TestParse(t *testing.T) {
	fs, budget := newFlags()
	err := Parse(fs, []string{"--budget=2ms", "word"}, io.Discard)
	if err != nil || *budget != 2*time.Millisecond {
		t.Errorf("got %v, %v", *budget, err)
	}
	if err := NoArgs(fs); !errors.As(err, new(UsageError)) {
		t.Errorf("a spare word: %v", err)
	}
	fs, _ = newFlags()
	fs.Duration("other", 0, "")
	if err := Parse(fs, nil, io.Discard); err != nil || NoArgs(fs) != nil {
		t.Errorf("no arguments: %v", err)
	}
}

func TestHelpAndVersionGoToStandardOutput(t *testing.T) {
	for arg, want := range map[string]string{
		"--help":    "longest time (default 1ms)",
		"-h":        "Usage of program",
		"--version": "program ",
	} {
		fs, _ := newFlags()
		var out strings.Builder
		err := Parse(fs, []string{arg}, &out)
		if !errors.Is(err, ErrDone) || !strings.Contains(out.String(), want) {
			t.Errorf("%s: got %v and %q, want %q", arg, err, out.String(), want)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want int
		says string
	}{
		{"nothing is wrong", nil, 0, ""},
		{"a wrong command line", Usagef("no command"), 2, "program: no command\nTry 'program --help'.\n"},
		{"any other error", io.ErrUnexpectedEOF, 1, "program: unexpected EOF\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stderr strings.Builder
			if got := report(&stderr, "program", tc.err); got != tc.want || stderr.String() != tc.says {
				t.Errorf("status %d and %q, want %d and %q", got, stderr.String(), tc.want, tc.says)
			}
		})
	}
}

func TestOutputKeepsTheFirstWriteError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	out := NewOutput(full)
	_, _ = io.WriteString(out, "lost")
	_, err = io.WriteString(out, "lost too")
	if !errors.Is(err, unix.ENOSPC) || !errors.Is(out.Err(), unix.ENOSPC) {
		t.Errorf("got %v and then %v, want ENOSPC", err, out.Err())
	}
}
