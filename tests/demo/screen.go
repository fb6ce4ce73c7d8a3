// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// screen shows the progress of steps. In a terminal a step is one line that is rewritten.
// Elsewhere a step prints a line when it begins, one every few seconds, and one at its end.
type screen struct {
	out      io.Writer
	terminal bool
	open     string    // name of the step that goes on, "" for none
	began    time.Time // of the step
	said     time.Time // last line about it, where there is no terminal
}

// quiet is the time between two lines about a step without a terminal.
const quiet = 5 * time.Second

func newScreen(out io.Writer, terminal bool) *screen {
	return &screen{out: out, terminal: terminal}
}

// isTerminal tells whether lines can be written again on f.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// clearLine moves to the line's beginning and erases it.
const clearLine = "\r\x1b[K"

// step begins a step, and ends the one before.
func (s *screen) step(name string) {
	s.done("")
	s.open, s.began = name, time.Now()
	s.said = s.began
	if s.terminal {
		fmt.Fprintf(s.out, "%s  … %s", clearLine, name)
	} else {
		fmt.Fprintf(s.out, "  … %s\n", name)
	}
}

// progress says how far the step is.
func (s *screen) progress(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case s.terminal:
		fmt.Fprintf(s.out, "%s  … %s: %s", clearLine, s.open, text)
	case time.Since(s.said) > quiet:
		s.said = time.Now()
		fmt.Fprintf(s.out, "  … %s: %s\n", s.open, text)
	}
}

// done ends the step with its result.
func (s *screen) done(result string) {
	if s.open == "" {
		return
	}
	if result != "" {
		result = ": " + result
	}
	if s.terminal {
		fmt.Fprint(s.out, clearLine)
	}
	fmt.Fprintf(s.out, "  ✓ %s%s (%.1f s)\n", s.open, result, time.Since(s.began).Seconds())
	s.open = ""
}

// line prints a line of its own, and ends the step.
func (s *screen) line(format string, args ...any) {
	s.done("")
	fmt.Fprintf(s.out, format+"\n", args...)
}
