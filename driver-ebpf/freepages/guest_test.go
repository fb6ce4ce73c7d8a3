// SPDX-License-Identifier: Apache-2.0

//go:build guest

// These tests run as root in a guest, and test the snapshot with its kernel. Build them
// with `go test -c -tags guest` and start the binary there.

package freepages

import (
	"errors"
	"math/bits"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf/features"
	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// unlockedBuddyinfo is the first Linux that prints /proc/buddyinfo without zone->lock, as
// LINUX_VERSION_CODE has it.
const unlockedBuddyinfo = 7<<16 | 3<<8

// The records are what the allocator itself counts in the same hold, by each hook. Where the
// kernel holds no lock, nothing is walked.
func TestWalkEqualsTheCountsOfTheSameHold(t *testing.T) {
	version, err := features.LinuxVersionCode()
	if err != nil {
		t.Fatal(err)
	}
	s := mustShareWithoutVisits(t)
	hooks, err := findHooks(s.peek)
	if err != nil {
		t.Fatal(err)
	}
	defer func(hook Hook) {
		if err := errors.Join(s.detach(), s.attachTo(hook)); err != nil {
			t.Error(err)
		}
	}(s.Hook())
	for _, hook := range hooks {
		t.Run(hook.String(), func(t *testing.T) {
			err := errors.Join(s.detach(), s.attachTo(hook))
			if hook.File == "/proc/buddyinfo" && version >= unlockedBuddyinfo {
				if n := len(s.Records()); !errors.Is(err, ErrUnlocked) || n != 0 {
					t.Fatalf("error %v, %d bytes of records, want %v and none", err, n, ErrUnlocked)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				records, steps := mustWalk(t, s, generous)
				if steps != 1 {
					t.Fatalf("the walk took %d steps, want one hold for each zone", steps)
				}
				requireCounts(t, s, records)
				requirePrinted(t, s)
			}
			t.Logf("%+v", s.Stats())
		})
	}
}

// requireCounts fails unless the records are as many as the allocator counts. Zones are walked
// in the order in which they are printed, each from its highest order down.
func requireCounts(t *testing.T, s *Snapshot, records []uint64) {
	t.Helper()
	for zone := range s.counts.zones() {
		for order := s.MaxOrder(); order >= 0; order-- {
			want := s.counts.free(zone, order)
			for got := range want {
				if len(records) == 0 || records[0]&63 != uint64(order) {
					t.Fatalf("zone %d order %d: %d records, the allocator counts %d",
						zone, order, got, want)
				}
				records = records[1:]
			}
		}
	}
	if len(records) != 0 {
		t.Fatalf("%d records more than blocks", len(records))
	}
}

// requirePrinted fails unless the counts fit what the kernel has printed in the same hold. Each
// CPU holds back a part of the printed sum of zoneinfo, up to its threshold.
func requirePrinted(t *testing.T, s *Snapshot) {
	t.Helper()
	if s.hook.File == "/proc/buddyinfo" {
		var blocks uint64
		for _, n := range mustParseBuddyinfo(t, s.file.text) {
			blocks += n
		}
		if got := s.counts.sum(); got != blocks {
			t.Fatalf("%d blocks, buddyinfo printed %d", got, blocks)
		}
		return
	}
	for _, zone := range mustParseZoneinfo(t, s.file.text) {
		var pages int
		for order := range maxOrders {
			pages += int(s.counts.free(zone.index, order)) << order
		}
		if pages < zone.free-zone.held || pages > zone.free+zone.held {
			t.Fatalf("zone %d: %d pages, zoneinfo printed %d ± %d",
				zone.index, pages, zone.free, zone.held)
		}
	}
}

func TestRecordsAreAlignedDisjointAndInsideMemory(t *testing.T) {
	s := mustShareWithoutVisits(t)
	records, _ := mustWalk(t, s, generous)
	ram := systemRAM(t)
	slices.Sort(records)
	var end uint64
	for _, record := range records {
		pfn, order := record>>8, record&63
		if record&0xc0 != 0 || order > uint64(s.MaxOrder()) ||
			bits.TrailingZeros64(pfn) < int(order) {
			t.Fatalf("record %#x: pfn %#x order %d", record, pfn, order)
		}
		if !inRAM(ram, pfn, order) {
			t.Fatalf("page %#x order %d is not in System RAM", pfn, order)
		}
		if pfn < end {
			t.Fatalf("page %#x is in two blocks", pfn)
		}
		end = pfn + 1<<order
	}
	t.Logf("%d blocks, %d MiB", len(records), pages(records)>>8)
}

func TestCutWalkResumesToTheSameCoverage(t *testing.T) {
	s := mustShareWithoutVisits(t)
	for name, budget := range map[string]walk.Budget{
		"1 entry":         {Time: time.Second, Entries: 1},
		"7 entries":       {Time: time.Second, Entries: 7},
		"50 microseconds": {Time: 50 * time.Microsecond, Entries: MaxEntries},
	} {
		t.Run(name, func(t *testing.T) {
			whole, _ := mustWalk(t, s, generous)
			before := pages(whole)
			cut, steps := mustWalk(t, s, budget)
			stats := s.Stats()
			whole, _ = mustWalk(t, s, generous)
			after := pages(whole)
			if steps > 1 && !stats.Resumed {
				t.Error("the walk resumed and does not say so")
			}
			if stats.LeftOut != 0 {
				t.Errorf("a complete walk left out %d blocks", stats.LeftOut)
			}
			// Other processes allocate and free meanwhile, but not much.
			got, least, most := pages(cut), min(before, after), max(before, after)
			if got < least-least/50 || got > most+least/50 {
				t.Errorf("%d pages in %d steps; one hold found %d before and %d after",
					got, steps, before, after)
			}
			t.Logf("%d steps, %d pages; one hold found %d and %d: %+v",
				steps, got, before, after, stats)
		})
	}
}

func TestFragmentedMemoryIsWalkedWithinTheBudget(t *testing.T) {
	s := mustShareWithoutVisits(t)
	shrinkCPULists(t)
	fragment(t, 128<<20)
	const entries = 1000
	s.Begin()
	for previous := uint64(0); ; {
		state, err := s.Step(walk.Budget{Time: time.Second, Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		stats, zones := s.Stats(), s.file.zones()
		if got := stats.Records - previous; got > uint64(entries*zones) {
			t.Fatalf("%d records in one read of %d zones", got, zones)
		}
		if previous = stats.Records; state == walk.Done {
			break
		}
	}
	// fragment has freed every other page of 128 MiB: 16384 of 4 KiB.
	if got := s.Stats().Records; got < uint64(10_000*4096/os.Getpagesize()) {
		t.Fatalf("only %d records: memory is not fragmented", got)
	}
	t.Logf("%+v", s.Stats())
	records, _ := mustWalk(t, s, generous)
	t.Logf("%d records with a budget of %+v: %+v", len(records), generous, s.Stats())
}

func TestWalkIsSoundWhileMemoryChurns(t *testing.T) {
	s := mustShare(t)
	ram := systemRAM(t)
	stop := make(chan struct{})
	var churn sync.WaitGroup
	churn.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				fragment(t, 16<<20)()
			}
		}
	})
	for range 20 {
		records, _ := mustWalk(t, s, walk.Budget{Time: time.Second, Entries: 200})
		for _, record := range records {
			pfn, order := record>>8, record&63
			if bits.TrailingZeros64(pfn) < int(order) || !inRAM(ram, pfn, order) {
				t.Fatalf("record %#x: pfn %#x order %d", record, pfn, order)
			}
		}
	}
	close(stop)
	churn.Wait()
	t.Logf("%+v", s.Stats())
}

func TestFullBufferIsReleasedAndFilledAgain(t *testing.T) {
	const room = 100
	s := mustLoad(t, room)
	records, steps := mustWalk(t, s, generous)
	if len(records) <= room || steps < len(records)/room {
		t.Fatalf("%d records in %d steps through a buffer of %d", len(records), steps, room)
	}
	if got := s.Stats().Records; got != uint64(len(records)) {
		t.Fatalf("statistics count %d records of %d", got, len(records))
	}
	whole, _ := mustWalk(t, mustShare(t), generous)
	// Between the two walks loading the program has changed how much memory is free.
	if got, want := pages(records), pages(whole); got < want*9/10 || got > want*11/10 {
		t.Fatalf("%d pages in %d steps; one hold found %d", got, steps, want)
	}
}

func TestHoldEndsAtItsBudget(t *testing.T) {
	s := mustShare(t)
	s.Begin()
	state, err := s.Step(walk.Budget{Time: time.Second, Entries: 3})
	if err != nil || state != walk.More {
		t.Fatalf("state %d, error %v, want More", state, err)
	}
	zones := s.file.zones()
	if got := len(s.Records()) / protocol.RecordSize; got > 3*zones {
		t.Fatalf("%d records from %d zones with 3 entries each", got, zones)
	}
	if s.Stats().LeftOut == 0 {
		t.Fatal("blocks that are left out are not counted")
	}
}

func TestHoldWithoutTimeVisitsFewBlocksButSome(t *testing.T) {
	const clockInterval = 16 // of bpf/walk.bpf.c
	s := mustShare(t)
	s.Begin()
	for steps, before := 1, uint64(0); ; steps++ {
		state, err := s.Step(walk.Budget{Time: time.Nanosecond, Entries: MaxEntries})
		if err != nil {
			t.Fatal(err)
		}
		records := s.Stats().Records
		if most := uint64(s.control.u32(controlZones)) * clockInterval; records-before > most {
			t.Fatalf("step %d found %d blocks, want at most %d", steps, records-before, most)
		}
		if state == walk.Done {
			t.Logf("%d steps: %+v", steps, s.Stats())
			return
		}
		if records == before {
			t.Fatalf("step %d found nothing, and is not the last", steps)
		}
		before = records
	}
}

func TestOtherReadersAreNotWalked(t *testing.T) {
	s := mustShare(t)
	s.Begin()
	for _, file := range []string{"/proc/buddyinfo", "/proc/zoneinfo", "/proc/pagetypeinfo"} {
		if _, err := os.ReadFile(file); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if n := len(s.Records()); n != 0 || s.control.u32(controlZones) != 0 {
		t.Fatalf("reading without a step left %d bytes of records", n)
	}
}

func TestSnapshotFollowsItsCallerFromThreadToThread(t *testing.T) {
	s := mustShare(t)
	for range 4 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
			mustWalk(t, s, generous)
		}()
		<-done
	}
}

// A probe that is attached to a call must not keep the next agent from finding it.
func TestHooksAreFoundWithAProbeInPlace(t *testing.T) {
	peek := mustPeek(t)
	hooks, err := findHooks(peek)
	if err != nil || len(hooks) != 2*len(zonePrints()) {
		t.Fatalf("hooks %v, error %v: a call was not found", hooks, err)
	}
	s := mustShare(t)
	if s.Hook().Symbol == printCallee {
		t.Fatalf("the slower hook %v is in use, of %v", s.Hook(), hooks)
	}
	again, err := findHooks(peek)
	if diff := cmp.Diff(hooks, again); err != nil || diff != "" {
		t.Fatalf("with the probe in place: %v %s", err, diff)
	}
}

func BenchmarkWalk(b *testing.B) {
	s := mustShare(b)
	for b.Loop() {
		mustWalk(b, s, generous)
	}
	b.ReportMetric(float64(s.Stats().Records), "records")
	b.ReportMetric(float64(s.Stats().WalkTime.Microseconds()), "walk-µs")
}

// BenchmarkSeqFile shows how much a loaded snapshot slows down other users of
// seq_printf. Compare hook=none, hook=call and hook=seq_printf.
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
	slower := Hook{Symbol: printCallee, File: s.hook.File}
	if s.link, err = slower.attach(s.objs.WalkZone); err != nil {
		b.Fatal(err)
	}
	b.Run("hook=seq_printf", read)
}
