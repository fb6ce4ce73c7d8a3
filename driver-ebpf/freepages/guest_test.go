// SPDX-License-Identifier: Apache-2.0

//go:build guest

// These tests run as root in a guest, and test the snapshot with its kernel. Build them
// with `go test -c -tags guest` and start the binary there.

package freepages

import (
	"math/bits"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

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
				for next < len(records) && records[next]&63 == uint64(order) &&
					got < zone.Free[order] {
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
	slices.Sort(records)
	var end uint64
	for _, record := range records {
		pfn, order := record>>8, record&63
		if record&0xc0 != 0 || order > uint64(s.MaxOrder()) ||
			bits.TrailingZeros64(pfn) < int(order) {
			t.Fatalf("record %#x: pfn %#x order %d", record, pfn, order)
		}
		if !within(ram, pfn<<12, (pfn+1<<order)<<12) {
			t.Fatalf("block %#x order %d is not in System RAM", pfn<<12, order)
		}
		if pfn < end {
			t.Fatalf("page %#x is in two blocks", pfn)
		}
		end = pfn + 1<<order
	}
	t.Logf("%d blocks, %d MiB", len(records), pages(records)>>8)
}

func TestCutWalkResumesToTheSameCoverage(t *testing.T) {
	s := mustLoad(t, 0)
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
	s := mustLoad(t, 0)
	shrinkCPULists(t)
	fragment(t, 128<<20)
	const entries = 1000
	s.Begin()
	for previous := uint64(0); ; {
		state, err := s.Step(walk.Budget{Time: time.Second, Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		zones, err := ParseBuddyinfo(s.Text())
		if err != nil {
			t.Fatal(err)
		}
		stats := s.Stats()
		if got := stats.Records - previous; got > uint64(entries*len(zones)) {
			t.Fatalf("%d records in one read of %d zones", got, len(zones))
		}
		if previous = stats.Records; state == walk.Done {
			break
		}
	}
	// fragment has freed every other page of 128 MiB.
	if got := s.Stats().Records; got < 10_000 {
		t.Fatalf("only %d records: memory is not fragmented", got)
	}
	t.Logf("%+v", s.Stats())
	records, _ := mustWalk(t, s, generous)
	t.Logf("%d records with a budget of %+v: %+v", len(records), generous, s.Stats())
}

func TestWalkIsSoundWhileMemoryChurns(t *testing.T) {
	s := mustLoad(t, 0)
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
			if bits.TrailingZeros64(pfn) < int(order) || !within(ram, pfn<<12, (pfn+1<<order)<<12) {
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
	whole, _ := mustWalk(t, mustLoad(t, 0), generous)
	// Between the two walks loading the program has changed how much memory is free.
	if got, want := pages(records), pages(whole); got < want*9/10 || got > want*11/10 {
		t.Fatalf("%d pages in %d steps; one hold found %d", got, steps, want)
	}
}

func TestHoldEndsAtItsBudget(t *testing.T) {
	s := mustLoad(t, 0)
	s.Begin()
	state, err := s.Step(walk.Budget{Time: time.Second, Entries: 3})
	if err != nil || state != walk.More {
		t.Fatalf("state %d, error %v, want More", state, err)
	}
	zones, err := ParseBuddyinfo(s.Text())
	if err != nil {
		t.Fatal(err)
	}
	if got := len(s.Records()) / protocol.RecordSize; got > 3*len(zones) {
		t.Fatalf("%d records from %d zones with 3 entries each", got, len(zones))
	}
	if s.Stats().LeftOut == 0 {
		t.Fatal("blocks that are left out are not counted")
	}
}

func TestHoldWithoutTimeVisitsFewBlocksButSome(t *testing.T) {
	const clockInterval = 16 // of bpf/walk.bpf.c
	s := mustLoad(t, 0)
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
	s := mustLoad(t, 0)
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
	s := mustLoad(t, 0)
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

func TestBothHooksFindTheSamePages(t *testing.T) {
	peek := mustPeek(t)
	hooks, err := findHooks(peek)
	if err != nil || len(hooks) != 2 {
		t.Fatalf("hooks %v, error %v: the call in %s was not found", hooks, err, printFunction)
	}
	// A probe that is attached to the call must not keep the next agent from finding it.
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
	if was, is := pages(whole), pages(slower); steps != 1 || is < was*9/10 || is > was*11/10 {
		t.Fatalf("%v finds %d pages in %d steps, %v finds %d", hooks[1], is, steps, hooks[0], was)
	}
}

func BenchmarkWalk(b *testing.B) {
	s := mustLoad(b, 0)
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
	if s.link, err = (Hook{Symbol: printCallee}).attach(s.objs.WalkZone); err != nil {
		b.Fatal(err)
	}
	b.Run("hook=seq_printf", read)
}
