// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
)

// movesLocked is the kernel's setting by which it moves also pages that are locked
// (Documentation/admin-guide/sysctl/vm.rst).
const movesLocked = "/proc/sys/vm/compact_unevictable_allowed"

// pulse works at an even pace until the input ends, and answers each line with where the host finds
// its counter.
func pulse(args []string) error {
	flags := flag.NewFlagSet("pulse", flag.ContinueOnError)
	pages := flags.Int("pages", 16384, "pages to write to")
	rate := flags.Int("rate", 1000, "writes in a second")
	if err := flags.Parse(args); err != nil {
		return err
	}
	err := os.WriteFile(movesLocked, []byte("0"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p, err := memory.NewPulse(*pages, *rate)
	if err != nil {
		return err
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); p.Run(stop) }()
	defer func() { close(stop); <-done }()
	return answerLines(func(string) (any, error) { return p.Address() })
}
