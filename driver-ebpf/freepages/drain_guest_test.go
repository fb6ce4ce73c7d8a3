// SPDX-License-Identifier: Apache-2.0

//go:build guest

package freepages

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// When many pages are freed, the kernel lets the per-CPU lists grow. A drain makes them
// short again.
func TestDrainShortensPerCPULists(t *testing.T) {
	s := mustShare(t)
	if _, err := mustPeek(t).Symbol("decay_pcp_high"); err != nil {
		if s.drain != nil {
			t.Error("a drain is used that this kernel does not have")
		}
		return
	}
	if s.drain == nil {
		t.Fatal("the kernel's drain is not used")
	}
	for range 5 { // the kernel may shorten the lists itself before we look
		touchAndFree(t, 256<<20)
		before := allowedOnLists(t)
		for range 4 {
			s.Begin()
		}
		after := allowedOnLists(t)
		t.Logf("%d pages before, %d after, the last drain took %v", before, after, s.Stats().Drain)
		if after < before {
			return
		}
	}
	t.Error("drains shorten nothing")
}

func touchAndFree(t *testing.T, size int) {
	t.Helper()
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	mem, err := unix.Mmap(-1, 0, size, prot, flags)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < size; at += os.Getpagesize() {
		mem[at] = 1
	}
	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
}

// allowedOnLists returns how many pages all per-CPU lists may hold.
func allowedOnLists(t *testing.T) (pages int) {
	t.Helper()
	text, err := os.ReadFile("/proc/zoneinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if high, ok := strings.CutPrefix(strings.TrimSpace(line), "high:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(high))
			if err != nil {
				t.Fatal(err)
			}
			pages += n
		}
	}
	return pages
}
