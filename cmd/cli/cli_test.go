// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// newFlags returns the flags of a program, and the variable of its only flag.
func newFlags() (*pflag.FlagSet, *time.Duration) {
	fs := pflag.NewFlagSet("program", pflag.ContinueOnError)
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
		{"an unknown flag", "--colour", "--colour"},
		{"one dash", "-budget=1ms", "options have two dashes: --budget"},
		{"one dash, where -h exists", "-help", "options have two dashes: --help"},
		{"a spare word", "word", `unexpected argument "word"`},
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
	err := Parse(fs, []string{"--budget=2ms"}, io.Discard)
	if err != nil || *budget != 2*time.Millisecond {
		t.Errorf("got %v, %v", *budget, err)
	}
	fs, _ = newFlags()
	if err := Parse(fs, nil, io.Discard); err != nil {
		t.Errorf("no arguments: %v", err)
	}
}

func TestHelpAndVersionGoToStandardOutput(t *testing.T) {
	for arg, want := range map[string]string{
		"--help":    "--budget time   longest time (default 1ms)",
		"-h":        "usage: program [option]...\n\noptions:\n",
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
		{"an error with a status", WithStatus(3, io.EOF), 3, "program: EOF\n"},
		{"any other error", io.ErrUnexpectedEOF, 1, "program: unexpected EOF\n"},
		{"text of others", errors.New("no \x1b[2Jguest"), 1, "program: no ?[2Jguest\n"},
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

func TestPrintableText(t *testing.T) {
	for in, want := range map[string]string{
		"VM é, 7.3 MiB\tof\n8\n":      "VM é, 7.3 MiB\tof\n8\n",
		"\x1b]0;title\a\x1b[31mred":   "?]0;title??[31mred",
		"C1: \u009b2J, DEL: \x7f, \r": "C1: ?2J, DEL: ?, ?",
		"not UTF-8: \x9b2J":           "not UTF-8: ?2J",
		"backwards: \u202e":           "backwards: ?",
	} {
		var out strings.Builder
		n, err := io.WriteString(Printable(&out), in)
		if err != nil || n != len(in) || out.String() != want {
			t.Errorf("%q: %d, %v, %q, want %q", in, n, err, out.String(), want)
		}
	}
	if _, err := io.WriteString(Printable(failing{}), "lost"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// newProgram returns a program with the commands greet and grow.
func newProgram() *cobra.Command {
	root := &cobra.Command{Use: "program", Long: "A program."}
	greet := &cobra.Command{Use: "greet", Short: "say hello", Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.Println("hello")
			_, err := io.WriteString(cmd.OutOrStdout(), "hello")
			return err
		}}
	grow := &cobra.Command{Use: "grow", Short: "fail",
		RunE: func(*cobra.Command, []string) error { return io.ErrUnexpectedEOF }}
	root.AddCommand(greet, grow)
	return root
}

func TestCommands(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string
		prints string
		err    error
	}{
		{"a command", []string{"greet"}, "hello", nil},
		{"a command that fails", []string{"grow"}, "", io.ErrUnexpectedEOF},
		{"the help", []string{"--help"}, "  greet       say hello\n", ErrDone},
		{"the help of a command", []string{"help", "greet"}, "usage: program greet [option]...\n", nil},
		{"the version", []string{"--version"}, "program ", ErrDone},
		{"completion", []string{"completion", "bash"}, "bash completion V2 for program", nil},
		{"what bash asks", []string{"__complete", "gr"}, "greet\tsay hello\ngrow\tfail\n", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			err := Execute(t.Context(), newProgram(), tc.args, &out)
			if !errors.Is(err, tc.err) || !strings.Contains(out.String(), tc.prints) {
				t.Errorf("got %v and %q, want %v and %q", err, out.String(), tc.err, tc.prints)
			}
		})
	}
}

func TestWrongCommandsAreOneLine(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "no command"},
		{[]string{"destroy"}, `unknown command "destroy"`},
		{[]string{"gret"}, `unknown command "gret": is it greet?`},
		{[]string{"greet", "me"}, `unexpected argument "me"`},
		{[]string{"greet", "--loud"}, "unknown flag: --loud"},
		{[]string{"help", "nonsense"}, `there is no command "nonsense"`},
		{[]string{"completion", "dos"}, `invalid argument "dos" for "program completion"`},
		{[]string{"completion"}, "accepts 1 arg(s), received 0"},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			var out strings.Builder
			err := Execute(t.Context(), newProgram(), tc.args, &out)
			if !errors.As(err, new(UsageError)) || err.Error() != tc.want || out.Len() > 0 {
				t.Errorf("got %q and %q, want the usage error %q", err, out.String(), tc.want)
			}
		})
	}
}

// A program without commands does not begin to work because a shell wants completions.
func TestAProgramWithoutCommandsCompletesNothing(t *testing.T) {
	for _, word := range []string{cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd} {
		root := &cobra.Command{Use: "program", Args: NoArgs,
			RunE: func(*cobra.Command, []string) error { return nil }}
		var wrong UsageError
		if err := Execute(t.Context(), root, []string{word, ""}, io.Discard); !errors.As(err, &wrong) {
			t.Errorf("%s: got %v, want a usage error", word, err)
		}
	}
}
