// SPDX-License-Identifier: Apache-2.0

//go:build guest

package freepages

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

func mustPeek(tb testing.TB) *kernel.Peek {
	tb.Helper()
	peek, err := kernel.OpenPeek()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { peek.Close() })
	return peek
}

func mustLoad(tb testing.TB, records int) *Snapshot {
	tb.Helper()
	s, err := Load(mustPeek(tb), Options{Records: records, Log: zaptest.NewLogger(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// shared returns the one snapshot of all tests that leave it as they find it. To load one takes
// seconds in an emulated guest.
var shared = sync.OnceValues(func() (*Snapshot, error) {
	peek, err := kernel.OpenPeek()
	if err != nil {
		return nil, err
	}
	return Load(peek, Options{Log: zap.NewExample()})
})

func mustShare(tb testing.TB) *Snapshot {
	tb.Helper()
	s, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// mustShareWithoutVisits is mustShare for tests that take the lists of CPUs for no part of the
// walk.
func mustShareWithoutVisits(t *testing.T) *Snapshot {
	t.Helper()
	s := mustShare(t)
	visitor := s.visitor
	t.Cleanup(func() { s.visitor = visitor })
	s.visitor = nil
	return s
}

// mustWalk takes a whole snapshot and returns copies of its records.
func mustWalk(tb testing.TB, s *Snapshot, budget walk.Budget) (records []uint64, steps int) {
	tb.Helper()
	s.Begin()
	for {
		state, err := s.Step(budget)
		if err != nil {
			tb.Fatal(err)
		}
		steps++
		if state == walk.More {
			continue
		}
		for p := s.Records(); len(p) != 0; p = p[protocol.RecordSize:] {
			records = append(records, binary.LittleEndian.Uint64(p))
		}
		s.Release()
		if state == walk.Done {
			return records, steps
		}
	}
}

// generous is a budget that is enough for all free lists of a test guest.
var generous = walk.Budget{Time: time.Second, Entries: MaxEntries}

// shrinkCPULists makes freed pages go to the free lists. Otherwise the lists of the CPU
// that frees them keep up to an eighth of the memory.
func shrinkCPULists(t *testing.T) {
	t.Helper()
	const file = "/proc/sys/vm/percpu_pagelist_high_fraction"
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("10000"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, was, 0); err != nil {
			t.Error(err)
		}
	})
}

// fragment allocates memory and frees every other page of it. release frees the rest; so
// does the end of the test.
func fragment(t *testing.T, size int) (release func()) {
	t.Helper()
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	mem, err := unix.Mmap(-1, 0, size, prot, flags)
	if err != nil {
		t.Error(err)
		return func() {}
	}
	release = sync.OnceFunc(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(release)
	// A kernel without huge pages returns an error, which does not matter.
	_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	pageSize := os.Getpagesize()
	for page := 0; page < size; page += pageSize {
		mem[page] = 1
	}
	for page := 0; page < size; page += 2 * pageSize {
		if err := unix.Madvise(mem[page:page+pageSize], unix.MADV_DONTNEED); err != nil {
			t.Error(err)
		}
	}
	return release
}

// pages counts the pages of records. A page that is in two records counts once.
func pages(records []uint64) (n int) {
	sorted := slices.Clone(records)
	slices.Sort(sorted)
	var end uint64
	for _, record := range sorted {
		first, next := record>>8, record>>8+1<<(record&63)
		if next > end {
			n += int(next - max(first, end))
			end = next
		}
	}
	return n
}

// mustParseBuddyinfo returns all numbers of free blocks in /proc/buddyinfo.
func mustParseBuddyinfo(tb testing.TB, text []byte) (free []uint64) {
	tb.Helper()
	for line := range strings.Lines(string(text)) {
		for _, field := range strings.Fields(line)[4:] { // after "Node 0, zone DMA"
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				tb.Fatalf("line %q of buddyinfo", line)
			}
			free = append(free, n)
		}
	}
	return free
}

// zoneinfo is what /proc/zoneinfo prints of a zone: its index among counts, its free pages, and
// how many of them the CPUs may not have told it.
type zoneinfo struct{ index, free, held int }

func mustParseZoneinfo(tb testing.TB, text []byte) (zones []zoneinfo) {
	tb.Helper()
	const perNode = 8 // MAX_ZONES of bpf/walk.bpf.c
	node, ordinal := -1, 0
	for line := range strings.Lines(string(text)) {
		var n int
		if _, err := fmt.Sscanf(line, "Node %d, zone", &n); err == nil {
			if n != node {
				node, ordinal = n, 0
			}
			zones = append(zones, zoneinfo{index: node*perNode + ordinal, free: -1})
			ordinal++
		}
		last := len(zones) - 1
		if _, err := fmt.Sscanf(line, " pages free %d", &n); err == nil {
			zones[last].free = n
		}
		if _, err := fmt.Sscanf(line, " vm stats threshold: %d", &n); err == nil {
			zones[last].held += n
		}
	}
	if len(zones) == 0 || zones[0].free < 0 || zones[0].held == 0 {
		tb.Fatalf("zoneinfo is %q", text)
	}
	return zones
}

type span struct{ start, end uint64 }

// inRAM says whether a block lies in one of the spans.
func inRAM(spans []span, pfn, order uint64) bool {
	size := uint64(os.Getpagesize())
	start, end := pfn*size, (pfn+1<<order)*size
	for _, s := range spans {
		if start >= s.start && end <= s.end {
			return true
		}
	}
	return false
}

// systemRAM reads the guest's memory map.
func systemRAM(tb testing.TB) (spans []span) {
	tb.Helper()
	text, err := os.ReadFile("/proc/iomem")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		where, what, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " : ")
		if what != "System RAM" {
			continue
		}
		from, to, _ := strings.Cut(where, "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil {
			tb.Fatalf("line %q of iomem", line)
		}
		spans = append(spans, span{start, end + 1})
	}
	if len(spans) == 0 || spans[0].end == 1 {
		tb.Fatal("/proc/iomem hides the addresses")
	}
	return spans
}
