// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// floorMargin is how much a migration may send, as a multiple of the floor: the
// bytes that it must send at least.
const floorMargin = 1.05

// bothSources runs a test with the agent, and by introspection from the host.
func bothSources(t *testing.T, f func(t *testing.T, introspect bool)) {
	t.Run("driver", func(t *testing.T) { f(t, false) })
	t.Run("introspection", func(t *testing.T) { f(t, true) })
}

// sourceInTurn runs the i-th case of a test with one of the sources, in turn, and with both with
// -soak. It is for what hardly differs from one source to the other.
func sourceInTurn(t *testing.T, i int, f func(t *testing.T, introspect bool)) {
	if *soak {
		bothSources(t, f)
		return
	}
	f(t, i%2 == 1)
}

// eachKernel runs a test with each kernel with -soak, and else with the oldest and the newest. The
// agent and introspection take turns: it is for what hardly differs from one source to the other.
func eachKernel(t *testing.T, f func(t *testing.T, s setup)) {
	kernels := guest.OldestAndNewest()
	if *soak {
		kernels = guest.AllSeries()
	}
	for i, series := range kernels {
		t.Run(string(series), func(t *testing.T) {
			f(t, setup{series: series, introspect: i%2 == 1})
		})
	}
}

// eachSource is bothSources for each kernel.
func eachSource(t *testing.T, f func(t *testing.T, s setup)) {
	for _, series := range guest.AllSeries() {
		t.Run(string(series), func(t *testing.T) {
			bothSources(t, func(t *testing.T, introspect bool) {
				f(t, setup{series: series, introspect: introspect})
			})
		})
	}
}

func TestFreeMemoryIsNotSent(t *testing.T) {
	eachSource(t, func(t *testing.T, s setup) {
		s.memoryMiB = 768
		m := boot(t, s)
		// A page that is written during the migration is sent twice, which would
		// count as too much sent.
		m.integrity("pause")
		info, err := m.vm.Fill(m.ctx, 512)
		if err != nil {
			t.Fatal(err)
		}
		dst, backend := m.startMigration(0)
		m.awaitHints("ok")
		m.requireModest()
		figures := m.arrive(dst, backend)
		m.integrity("resume")
		m.requireSound()

		// Programs that end late may free and take memory meanwhile, on a busy machine.
		free := min(info.Buddy, m.memory().Buddy)
		floor := figures.Floor(free).Bytes()
		t.Logf("sent %d bytes, the floor is %d; %+v", figures.RAM.Transferred, floor, figures.Hints)
		if got := figures.RAM.Transferred; float64(got) > floorMargin*float64(floor) {
			t.Errorf("sent %d bytes, more than %v times the floor of %d", got, floorMargin, floor)
		}
		if skipped := figures.Hints.Skipped; skipped*100 < free*95 {
			t.Errorf("skipped %d pages of %d that were free", skipped, free)
		}
		requirePhases(t, figures.Hints, s.introspect)
	})
}

// requireModest checks that the peak memory of fbppd stays below a bound that is stricter than
// MemoryMax= of its unit, since these guests are small.
func (m *machine) requireModest() {
	m.t.Helper()
	const most = 256
	peak, err := m.backend.PeakMiB()
	if err != nil {
		m.t.Fatal(err)
	}
	if peak > most {
		m.t.Errorf("fbppd has held %d MiB, more than %d", peak, most)
	}
	m.t.Logf("fbppd has held %d MiB", peak)
}

// requirePhases checks that QEMU reports the phases of the source, and that their
// times are no more than that of the exchange.
func requirePhases(t *testing.T, h *vm.Hints, introspect bool) {
	t.Helper()
	var names []string
	sum := h.Clear
	for _, p := range h.Phases {
		names = append(names, p.Name)
		sum += p.Time
		if !source.IsPhase(p.Name) {
			t.Errorf("the metrics do not know the phase %q", p.Name)
		}
	}
	answerer, worked := vm.SourceDriver, source.PhaseWalk
	want := []string{source.PhaseWakeup, source.PhaseWalk, source.PhaseTransfer, source.PhaseDecode}
	if introspect {
		answerer, worked = vm.SourceIntrospect, source.PhaseScan
		want = []string{source.PhaseFind, source.PhaseScan, source.PhasePeek, source.PhaseSieve}
	}
	// fbppd may add phases of its own after those of the source.
	if h.Source != answerer || !slices.Equal(names[:min(len(names), len(want))], want) ||
		h.Phase(worked) == 0 {
		t.Errorf("the source is %q with the phases %v, want %q with %v",
			h.Source, h.Phases, answerer, want)
	}
	if sum > h.Exchange {
		t.Errorf("phases of %d µs are more than the exchange of %d µs", sum, h.Exchange)
	}
	if introspect {
		if h.Detail(vm.DetailRead) == 0 {
			t.Errorf("the details are %v", h.Details)
		}
		return
	}
	if h.Detail(vm.DetailHolds) == 0 || h.Detail(vm.DetailHoldMax) > h.Phase(source.PhaseWalk) {
		t.Errorf("the details are %v, of a walk of %d µs", h.Details, h.Phase(source.PhaseWalk))
	}
}

// soundRounds is the number of migrations in the integrity tests with -soak. Without, each source
// has half of them, so that each kernel has them all.
const soundRounds = 20

func TestMemoryStaysSoundThroughMigrations(t *testing.T) {
	eachSource(t, func(t *testing.T, s setup) {
		m := boot(t, s)
		// Free pages are not zero then: a page that is skipped wrongly cannot be
		// right by chance.
		if _, err := m.vm.Fill(m.ctx, 160); err != nil {
			t.Fatal(err)
		}
		var skipped int64
		n := rounds(soundRounds/2, soundRounds)
		for round := range n {
			figures := m.migrate()
			requireHints(t, figures, "ok")
			m.requireSound()
			m.awaitDriver()
			skipped += figures.Hints.Skipped
			if testing.Verbose() {
				t.Logf("round %d: sent %d MB, skipped %d pages, exchange %d µs", round+1,
					figures.RAM.Transferred>>20, figures.Hints.Skipped, figures.Hints.Exchange)
			}
		}
		last := m.integrity("verify")
		t.Logf("%d migrations skipped %d pages; %d pages written or verified in the guest,"+
			" no mismatch", n, skipped, last.Count)
	})
}
