// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// A Linux guest whose hot memory fbppd has named moves when that has been sent. QEMU
// switches to postcopy by itself, and all memory arrives. The destination requests
// fewer pages than in a postcopy migration that switches at once.
func TestHybridMigrationOfALinuxGuest(t *testing.T) {
	m := boot(t, setup{introspect: true})
	m.requireUnordered()
	// How many pages are asked for depends on the moment of the switch, too: so add some up.
	var atOnce, hybrid int64
	for range 3 {
		m.parameter("max-postcopy-bandwidth", hybridBandwidth)
		figures := m.migrateByPostcopy(false)
		if figures.Hints.Hot == nil || !hasPhase(figures.Hints, source.PhaseOrder) {
			t.Errorf("fbppd found no order for a postcopy migration: %+v", figures.Hints)
		}
		atOnce += figures.RAM.Requests
		m.awaitDriver()
		m.parameter("max-postcopy-bandwidth", hybridBandwidth)
		m.setDevice("hybrid", true)
		figures = m.migrateByPostcopy(true)
		if figures.Hints.Hybrid != "switched" {
			t.Fatalf("the hybrid migration is %q, want it switched", figures.Hints.Hybrid)
		}
		hybrid += figures.RAM.Requests
		m.awaitDriver()
	}
	t.Logf("%d requests in hybrid migrations, and %d without", hybrid, atOnce)
	if hybrid >= atOnce {
		t.Error("hybrid migrations request no fewer pages than postcopy at once")
	}
}

// requireUnordered migrates by precopy, for which fbppd does not look for an order.
func (m *machine) requireUnordered() {
	m.t.Helper()
	figures := m.migrate()
	requireHints(m.t, figures, "ok")
	if figures.Hints.Hot != nil || hasPhase(figures.Hints, source.PhaseOrder) {
		m.t.Errorf("fbppd looked for an order in a precopy migration: %+v", figures.Hints)
	}
	m.awaitDriver()
}

func hasPhase(h *vm.Hints, name string) bool {
	return slices.ContainsFunc(h.Phases, func(p vm.HintPhase) bool { return p.Name == name })
}

// hybridBandwidth makes precopy take longer than sending the hot memory, in bytes per
// second.
const hybridBandwidth = 32 << 20

// migrateByPostcopy moves the guest to a new QEMU. With hybrid QEMU has to switch by
// itself.
func (m *machine) migrateByPostcopy(hybrid bool) *vm.Migration {
	m.t.Helper()
	dst, backend := m.beginPostcopy()
	if !hybrid {
		m.awaitHints("ok")
		m.execute("migrate-start-postcopy")
	}
	m.awaitMigration("postcopy-active")
	if err := dst.Arrive(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	figures := m.arrive(dst, backend)
	requireHints(m.t, figures, "ok")
	m.requireSound()
	return figures
}
