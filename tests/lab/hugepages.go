// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// ReserveHugePages makes the host reserve n free huge pages of 2 MiB until the test
// ends. It needs root. Tests that use it must not run in parallel.
func ReserveHugePages(t testing.TB, n int) {
	t.Helper()
	if n == 0 {
		return
	}
	const (
		file   = "/proc/sys/vm/nr_hugepages"
		unused = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
	)
	read := func(file string) int {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		have, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return have
	}
	before := read(file)
	// An earlier run may have been killed before it released its pages.
	n = max(0, n-read(unused))
	write := func(file string, n int) {
		if err := os.WriteFile(file, []byte(strconv.Itoa(n)), 0o644); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { write(file, before) })
	write(file, before+n)
	if read(file) < before+n {
		// Page cache has most of a host's memory in small pieces.
		write("/proc/sys/vm/drop_caches", 1)
		write("/proc/sys/vm/compact_memory", 1)
		write(file, before+n)
	}
	if have := read(file); have < before+n {
		t.Fatalf("the host gave %d huge pages of the %d that the test needs", have-before, n)
	}
}
