// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// Postcopy begins as soon as the guest has said what is free. At the destination that
// is zero, while the rest has yet to arrive, and nobody asks for it.
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

				m.integrityAt(dst, "pause") // which needs pages all the time
				before := m.requests()
				m.requireNewZeroes(dst)
				// What the guest's programs need, and what it has freed since it was asked.
				const pages = zeroedMiB << 20 / memory.PageSize
				n := m.requests() - before
				t.Logf("%d requests of the destination as the guest takes %d free pages", n, pages)
				if n > pages/2 {
					t.Error("it asks for most of what is free")
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

// switchOver has a destination run while most of the memory has yet to arrive.
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

// requests counts the pages that a destination asked the source for.
func (m *machine) requests() int64 {
	m.t.Helper()
	figures, err := m.vm.QueryMigrate(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return figures.RAM.Requests
}
