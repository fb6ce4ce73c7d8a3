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
	m.parameter("max-postcopy-bandwidth", hybridBandwidth)
	atOnce := m.migrateByPostcopy(false)
	if atOnce.Hints.Hot == nil || !hasPhase(atOnce.Hints, source.PhaseOrder) {
		t.Errorf("fbppd found no order for a postcopy migration: %+v", atOnce.Hints)
	}
	m.awaitDriver()
	m.parameter("max-postcopy-bandwidth", hybridBandwidth)
	m.setDevice("hybrid", true)
	hybrid := m.migrateByPostcopy(true)
	if hybrid.Hints.Hybrid != "switched" {
		t.Fatalf("the hybrid migration is %q, want it switched", hybrid.Hints.Hybrid)
	}
	t.Logf("%d requests in a hybrid migration, of which %d MiB were hot, and %d without",
		hybrid.RAM.Requests, *hybrid.Hints.Hot>>20, atOnce.RAM.Requests)
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
