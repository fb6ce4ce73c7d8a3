// SPDX-License-Identifier: Apache-2.0

//go:build guest

// These tests run as root on the kernel that they are about: build them with
// `go test -c -tags guest` and start the binary inside a guest.

package freepages

import (
	"bytes"
	"math/bits"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
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

// mustWalk takes a whole snapshot and returns copies of its records.
func mustWalk(tb testing.TB, s *Snapshot, budget Budget) (records []uint64, steps int) {
	tb.Helper()
	s.Begin()
	for {
		state, err := s.Step(budget)
		if err != nil {
			tb.Fatal(err)
		}
		steps++
		if state == More {
			continue
		}
		for i := range s.Records().Len() / RecordSize {
			records = append(records, s.Record(i))
		}
		s.Release()
		if state == Done {
			return records, steps
		}
	}
}

// generous is a budget that no test guest's lists exceed.
var generous = Budget{Time: time.Second, Entries: MaxEntries}

func TestWalkEqualsBuddyinfoOfTheSameHold(t *testing.T) {
	s := mustLoad(t, 0)
	for range 20 {
		records, steps := mustWalk(t, s, generous)
		if steps != 1 {
			t.Fatalf("the walk took %d steps, want one hold for each zone", steps)
		}
		zones, err := ParseBuddyinfo(s.Text())
		if err != nil {
			t.Fatal(err)
		}
		if len(zones[0].Free) != s.MaxOrder()+1 {
			t.Fatalf("buddyinfo prints %d orders, BTF has %d", len(zones[0].Free), s.MaxOrder()+1)
		}
		// Zones are walked in the order in which they are printed, each from
		// its highest order down, so the records fall into the printed counts.
		next := 0
		for _, zone := range zones {
			for order := s.MaxOrder(); order >= 0; order-- {
				var got uint64
				for next < len(records) && records[next]&63 == uint64(order) && got < zone.Free[order] {
					next++
					got++
				}
				if got != zone.Free[order] {
					t.Fatalf("node %d zone %s order %d: %d records, buddyinfo printed %d",
						zone.Node, zone.Name, order, got, zone.Free[order])
				}
			}
		}
		if next != len(records) {
			t.Fatalf("%d records, buddyinfo printed %d blocks", len(records), next)
		}
	}
	t.Logf("%+v on %v", s.Stats(), s.Hook())
}

func TestRecordsAreAlignedDisjointAndInsideMemory(t *testing.T) {
	s := mustLoad(t, 0)
	records, _ := mustWalk(t, s, generous)
	ram := systemRAM(t)
	free := make(map[uint64]struct{})
	for _, record := range records {
		pfn, order := record>>8, record&63
		if record&0xc0 != 0 || order > uint64(s.MaxOrder()) || bits.TrailingZeros64(pfn) < int(order) {
			t.Fatalf("record %#x: pfn %#x order %d", record, pfn, order)
		}
		if !within(ram, pfn<<12, (pfn+1<<order)<<12) {
			t.Fatalf("block %#x order %d is not in System RAM", pfn<<12, order)
		}
		for page := pfn; page < pfn+1<<order; page++ {
			if _, twice := free[page]; twice {
				t.Fatalf("page %#x is in two blocks", page)
			}
			free[page] = struct{}{}
		}
	}
	t.Logf("%d blocks, %d MiB", len(records), len(free)>>8)
}

func TestCutWalkResumesToTheSameCoverage(t *testing.T) {
	s := mustLoad(t, 0)
	before, _ := mustWalk(t, s, generous)
	for name, budget := range map[string]Budget{
		"7 entries":       {Time: time.Second, Entries: 7},
		"1 entry":         {Time: time.Second, Entries: 1},
		"50 microseconds": {Time: 50 * time.Microsecond, Entries: MaxEntries},
	} {
		t.Run(name, func(t *testing.T) {
			records, steps := mustWalk(t, s, budget)
			stats := s.Stats()
			if steps > 1 && !stats.Resumed {
				t.Error("the walk resumed and does not say so")
			}
			if stats.LeftOut != 0 {
				t.Errorf("a complete walk left out %d blocks", stats.LeftOut)
			}
			// The test itself allocates in between, so a little may differ.
			was, is := pages(before), pages(records)
			common := 0
			for page := range is {
				if _, ok := was[page]; ok {
					common++
				}
			}
			if len(is) < len(was)*98/100 || common < len(was)*98/100 {
				t.Errorf("%d pages in %d steps, %d of them among the %d of one hold", len(is), steps, common, len(was))
			}
			t.Logf("%d steps, %d pages, %d in common with %d: %+v", steps, len(is), common, len(was), stats)
		})
	}
}

func TestFullBufferIsReleasedAndFilledAgain(t *testing.T) {
	whole, _ := mustWalk(t, mustLoad(t, 0), generous)
	s := mustLoad(t, 100)
	records, steps := mustWalk(t, s, generous)
	if steps < len(whole)/100 || len(records) < len(whole)*9/10 {
		t.Fatalf("%d records in %d steps through a buffer of 100; one hold found %d", len(records), steps, len(whole))
	}
	if got := s.Stats().Records; got != uint64(len(records)) {
		t.Fatalf("statistics count %d records of %d", got, len(records))
	}
}

func TestHoldEndsAtItsBudget(t *testing.T) {
	s := mustLoad(t, 0)
	s.Begin()
	state, err := s.Step(Budget{Time: time.Second, Entries: 3})
	if err != nil || state != More {
		t.Fatalf("state %d, error %v, want More", state, err)
	}
	zones, err := ParseBuddyinfo(s.Text())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Records().Len() / RecordSize; got > 3*len(zones) {
		t.Fatalf("%d records from %d zones with 3 entries each", got, len(zones))
	}
	if s.Stats().LeftOut == 0 {
		t.Fatal("blocks that are left out are not counted")
	}
}

func TestOtherReadersAreNotWalked(t *testing.T) {
	s := mustLoad(t, 0)
	s.Begin()
	for _, file := range []string{"/proc/buddyinfo", "/proc/zoneinfo", "/proc/pagetypeinfo"} {
		if _, err := os.ReadFile(file); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if n := s.Records().Len(); n != 0 || s.control.u32(controlZones) != 0 {
		t.Fatalf("reading without a step left %d bytes of records", n)
	}
}

func TestSnapshotFollowsItsCallerFromThreadToThread(t *testing.T) {
	s := mustLoad(t, 0)
	for range 4 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked: the thread ends here
			mustWalk(t, s, generous)
		}()
		<-done
	}
}

func TestBothHooksSeeTheSame(t *testing.T) {
	peek := mustPeek(t)
	hooks, err := findHooks(peek)
	if err != nil || len(hooks) != 2 {
		t.Fatalf("hooks %v, error %v: the call in %s was not found", hooks, err, printFunction)
	}
	// A probe on the call must not hide the call from the next agent.
	s := mustLoad(t, 0)
	if s.Hook() != hooks[0] {
		t.Fatalf("hook %v is in use, want %v", s.Hook(), hooks[0])
	}
	again, err := findHooks(peek)
	if diff := cmp.Diff(hooks, again); err != nil || diff != "" {
		t.Fatalf("with the probe in place: %v %s", err, diff)
	}
	whole, _ := mustWalk(t, s, generous)

	if err := s.link.Close(); err != nil {
		t.Fatal(err)
	}
	if s.link, err = hooks[1].attach(s.objs.WalkZone); err != nil {
		t.Fatal(err)
	}
	slower, steps := mustWalk(t, s, generous)
	if was, is := len(pages(whole)), len(pages(slower)); steps != 1 || is < was*98/100 || is > was*102/100 {
		t.Fatalf("%v finds %d pages in %d steps, %v finds %d", hooks[1], is, steps, hooks[0], was)
	}
}

func pages(records []uint64) map[uint64]struct{} {
	set := make(map[uint64]struct{})
	for _, record := range records {
		for page := record >> 8; page < record>>8+1<<(record&63); page++ {
			set[page] = struct{}{}
		}
	}
	return set
}

type span struct{ start, end uint64 }

func within(spans []span, start, end uint64) bool {
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

func BenchmarkWalk(b *testing.B) {
	s := mustLoad(b, 0)
	for b.Loop() {
		mustWalk(b, s, generous)
	}
	b.ReportMetric(float64(s.Stats().Records), "records")
	b.ReportMetric(float64(s.Stats().WalkTime.Microseconds()), "walk-µs")
}

// BenchmarkSeqFile shows what a loaded snapshot costs those who print through
// seq_printf: compare hook=none, hook=call, hook=seq_printf.
func BenchmarkSeqFile(b *testing.B) {
	read := func(b *testing.B) {
		for b.Loop() {
			if _, err := os.ReadFile("/proc/self/status"); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("hook=none", read)
	s := mustLoad(b, 0)
	b.Run("hook=call", read)
	if err := s.link.Close(); err != nil {
		b.Fatal(err)
	}
	var err error
	if s.link, err = (Hook{Symbol: printCallee}).attach(s.objs.WalkZone); err != nil {
		b.Fatal(err)
	}
	b.Run("hook=seq_printf", read)
}
