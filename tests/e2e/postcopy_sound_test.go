// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// Memory is sound after each of many migrations by postcopy and by a hybrid.
func TestMemoryStaysSoundThroughPostcopy(t *testing.T) {
	kernels := []guest.Series{guest.Linux6_12}
	if *soak {
		kernels = guest.AllSeries()
	}
	for _, series := range kernels {
		t.Run(string(series), func(t *testing.T) {
			n := rounds(2, soundRounds)
			m := boot(t, setup{series: series, introspect: true, timeout: 5 * hangTimeout})
			if _, err := m.vm.Fill(m.ctx, 160); err != nil {
				t.Fatal(err)
			}
			var requests [2]int64
			for range n {
				for i, hybrid := range []bool{false, true} {
					m.setDevice("hybrid", hybrid)
					m.parameter("max-postcopy-bandwidth", hybridBandwidth)
					figures := m.migrateByPostcopy(hybrid)
					if got := figures.Hints.Hybrid; hybrid != (got == "switched") {
						t.Fatalf("the hybrid migration is %q", got)
					}
					requests[i] += figures.RAM.Requests
					m.awaitDriver()
				}
			}
			t.Logf("in %d migrations each: %d requests at once, %d in a hybrid",
				n, requests[0], requests[1])
		})
	}
}

// An fbppd that is killed, on either side and in each phase of a hybrid migration, ends
// neither the migration nor the guest, and is used again once it is back.
func TestFbppdIsKilledInEachPhaseOfAHybrid(t *testing.T) {
	m := boot(t, setup{introspect: true})
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		phase string // of the migration
		there bool   // the destination's fbppd
	}{
		{"the source's, while what is hot is sent", "active", false},
		{"the destination's, while what is hot is sent", "active", true},
		{"the source's, after the switchover", "postcopy-active", false},
		{"the destination's, after the switchover", "postcopy-active", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer m.in(t)()
			m.setDevice("hybrid", true)
			m.parameter("max-postcopy-bandwidth", hybridBandwidth)
			dst, backend := m.beginPostcopy()
			m.awaitHints("ok")
			m.awaitMigration(tc.phase)
			killed := m.backend
			if tc.there {
				killed = backend
			}
			killed.Kill()
			figures := m.arrive(dst, backend)
			requireHints(t, figures, "ok")
			m.requireSound()
			if tc.there {
				if err := m.backend.Restart(m.ctx); err != nil {
					t.Fatal(err)
				}
			}
			m.awaitDriver()
		})
	}
}

// beginPostcopy begins a migration to a new QEMU in which postcopy is permitted.
func (m *machine) beginPostcopy() (*vm.VM, *vm.Backend) {
	m.t.Helper()
	dst, backend := m.destination()
	const postcopy = "postcopy-ram"
	m.capability(postcopy, true)
	err := dst.Execute(m.ctx, "migrate-set-capabilities", capability(postcopy, true), nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.parameter("downtime-limit", 50)
	if err := m.vm.StartMigration(m.ctx, dst, hybridBandwidth); err != nil {
		m.t.Fatal(err)
	}
	return dst, backend
}
