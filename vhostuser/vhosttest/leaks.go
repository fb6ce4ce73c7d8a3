// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// RunTests runs a package's tests, and fails when they leave descriptors or
// mappings of guest memory behind, which it names. It returns the status for
// os.Exit. m is the *testing.M of TestMain; programs that import this package
// need not import testing.
func RunTests(m interface{ Run() int }) int {
	// The runtime's poller has descriptors of its own, and keeps them.
	if e, err := NewEvent(); err == nil {
		e.Close()
	}
	before := openFDs()
	code := m.Run()
	if code != 0 {
		return code
	}
	if leaked := leaks(before); len(leaked) > 0 {
		fmt.Fprintf(os.Stderr, "left behind by the tests:\n  %s\n", strings.Join(leaked, "\n  "))
		return 1
	}
	return 0
}

// leaks returns what is there that was not before. It waits a moment for
// goroutines that are still closing.
func leaks(before map[string]string) (leaked []string) {
	for range 100 {
		leaked = leaked[:0]
		for fd, what := range openFDs() {
			if before[fd] == "" {
				leaked = append(leaked, "descriptor "+fd+": "+what)
			}
		}
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			return []string{err.Error()}
		}
		for line := range strings.Lines(string(maps)) {
			if strings.Contains(line, "/memfd:") {
				leaked = append(leaked, "mapping "+strings.TrimSpace(line))
			}
		}
		if len(leaked) == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return leaked
}

// openFDs maps the process's descriptors to what they are of.
func openFDs() map[string]string {
	fds := make(map[string]string)
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if what, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			fds[e.Name()] = what
		}
	}
	return fds
}
