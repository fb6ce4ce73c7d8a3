// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// A Linux guest whose hot memory fbppd has named moves when that has been sent. QEMU
// switches to postcopy by itself, and all memory arrives. The destination requests
// fewer pages than in a postcopy migration that switches at once.
func TestHybridMigrationOfALinuxGuest(t *testing.T) {
	m := boot(t, setup{introspect: true})
	m.parameter("max-postcopy-bandwidth", hybridBandwidth)
	atOnce := m.migrateByPostcopy(false)
	m.awaitDriver()
	m.parameter("max-postcopy-bandwidth", hybridBandwidth)
	m.setDevice("hybrid", true)
	hybrid := m.migrateByPostcopy(true)
	if hybrid.Hints.Hybrid != "switched" {
		t.Fatalf("the hybrid migration is %q, want it switched", hybrid.Hints.Hybrid)
	}
	t.Logf("%d requests in a hybrid migration, of which %d MiB were hot, and %d without",
		hybrid.RAM.Requests, *hybrid.Hints.Hot>>20, atOnce.RAM.Requests)
	if hybrid.RAM.Requests >= atOnce.RAM.Requests {
		t.Error("a hybrid migration requests no fewer pages than postcopy at once")
	}
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
