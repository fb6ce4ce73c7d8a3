// SPDX-License-Identifier: Apache-2.0

//go:build guest

package freepages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// The lists of a CPU hold as many pages as the kernel prints in the same hold, and each is in
// RAM, and in no two records.
func TestListsOfACPUAreWhatItsKernelCounts(t *testing.T) {
	visitor := mustShare(t).visitor
	s := mustShareWithoutVisits(t)
	defer func(hook Hook) {
		if err := errors.Join(s.detach(), s.attachTo(hook)); err != nil {
			t.Error(err)
		}
	}(s.Hook())
	hooks, err := findHooks(s.peek)
	if err != nil {
		t.Fatal(err)
	}
	prints := func(h Hook) bool { return h.File == "/proc/zoneinfo" && h.Symbol != printCallee }
	hook := hooks[slices.IndexFunc(hooks, prints)]
	if err := errors.Join(s.detach(), s.attachTo(hook)); err != nil {
		t.Fatal(err)
	}
	ram := systemRAM(t)
	total := 0
	for range 10 {
		touchAndFree(t, 16<<20)
		mustWalk(t, s, generous)
		visitor.run(func(cpu int) {
			s.Release()
			before := s.held
			s.visit(cpu, generous)
			got, want := int(s.held-before), printedOn(t, cpu, s.file.text)
			if n := s.unsettled; got != want || n != 0 {
				t.Errorf("CPU %d: %d pages, zoneinfo printed %d; %d lists unsettled",
					cpu, got, want, n)
			}
			var records []uint64
			for p := s.Records(); len(p) != 0; p = p[protocol.RecordSize:] {
				records = append(records, binary.LittleEndian.Uint64(p))
			}
			if n := pages(records); n != got {
				t.Errorf("CPU %d: %d different pages, want %d", cpu, n, got)
			}
			for _, r := range records {
				if !inRAM(ram, r>>8, r&63) {
					t.Errorf("record %#x is not in System RAM", r)
				}
			}
			total += got
		})
		s.tid = 0
	}
	if total == 0 {
		t.Error("the lists are empty")
	}
	t.Logf("%d pages in 10 rounds", total)
}

// The walk finds what the lists of CPUs hold, and says that blocks may repeat.
func TestWalkVisitsTheCPUs(t *testing.T) {
	s := mustShare(t)
	for range 20 { // a busy host can take more time than a visit has
		touchAndFree(t, 16<<20)
		records, _ := mustWalk(t, s, generous)
		held := s.held
		if blocks := s.counts.sum(); s.visits > 0 && held > 0 {
			if !s.Stats().Resumed || uint64(len(records)) <= blocks {
				t.Errorf("%d records of %d blocks and %d pages held, %+v",
					len(records), blocks, held, s.Stats())
			}
			t.Logf("%d pages held, %+v", held, s.Stats())
			return
		}
	}
	t.Error("no CPU was visited")
}

// printedOn adds up the pages that zoneinfo prints for a CPU.
func printedOn(t *testing.T, cpu int, text []byte) (pages int) {
	t.Helper()
	at := -1
	for line := range strings.Lines(string(text)) {
		var n int
		if _, err := fmt.Sscanf(line, " cpu: %d", &n); err == nil {
			at = n
		}
		if _, err := fmt.Sscanf(line, " count: %d", &n); err == nil && at == cpu {
			pages += n
		}
	}
	if at < 0 {
		t.Errorf("zoneinfo is %q", text)
	}
	return pages
}
