// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// Postcopy begins right after the exchange. When the guest allocates a page that hints
// skipped, the destination gives it a zero page and does not ask the source for it.
func TestFreeMemoryIsNotSentInPostcopy(t *testing.T) {
	for _, tc := range []struct {
		name         string
		setup        setup
		capabilities []string
	}{
		{name: "a driver"},
		{name: "introspection", setup: setup{introspect: true}},
		{name: "preempt", capabilities: []string{"postcopy-preempt"}},
	} {
		if tc.setup.introspect && !*soak {
			continue // QEMU takes the same ranges from each source
		}
		t.Run(tc.name, func(t *testing.T) {
			tc.setup.kernelLine = []string{"init_on_free=1"}
			m := boot(t, tc.setup)
			if _, err := m.vm.Fill(m.ctx, 160); err != nil {
				t.Fatal(err)
			}
			capabilities := append([]string{"postcopy-ram"}, tc.capabilities...)
			for range 2 {
				dst, backend := m.destination()
				m.switchOver(dst, capabilities)

				m.integrityAt(dst, "pause") // it would request pages meanwhile
				before := m.requests()
				m.requireNewZeroes(dst)
				// Some requests remain: for pages that the guest's programs use, and for
				// pages that were freed after the exchange.
				const pages = zeroedMiB << 20 / memory.PageSize
				n := m.requests() - before
				t.Logf("%d requests of the destination as the guest takes %d free pages", n, pages)
				if n > pages/2 {
					t.Error("the destination requests most of the free pages")
				}

				m.integrityAt(dst, "resume")
				m.parameter("max-postcopy-bandwidth", 0)
				requireHints(t, m.arrive(dst, backend), "ok")
				m.requireSound()
				m.requireZeroes()
				for _, c := range slices.Backward(capabilities) {
					m.capability(c, false)
				}
				m.awaitDriver()
			}
		})
	}
}

// switchOver starts a slow migration, and switches to postcopy after the exchange:
// the guest runs at dst while most of its memory is still at the source.
func (m *machine) switchOver(dst *vm.VM, capabilities []string) {
	m.t.Helper()
	const slowly = 4 << 20
	for _, c := range capabilities {
		m.capability(c, true)
		err := dst.Execute(m.ctx, "migrate-set-capabilities", capability(c, true), nil)
		if err != nil {
			m.t.Fatal(err)
		}
	}
	m.parameter("max-postcopy-bandwidth", slowly)
	if err := m.vm.StartMigration(m.ctx, dst, slowly); err != nil {
		m.t.Fatal(err)
	}
	m.awaitHints("ok")
	m.execute("migrate-start-postcopy")
	m.awaitMigration("postcopy-active")
	if err := dst.Arrive(m.ctx); err != nil {
		m.t.Fatal(err)
	}
}

// requests returns how many pages the destination has requested from the source.
func (m *machine) requests() int64 {
	m.t.Helper()
	figures, err := m.vm.QueryMigrate(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return figures.RAM.Requests
}
