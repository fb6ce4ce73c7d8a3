// SPDX-License-Identifier: Apache-2.0

//go:build aarch64

// The build tag is for "make test-arm64", which sets TARGET=aarch64 as well.

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
)

// Introspection knows x86-64 only. It refuses a guest for arm64, says why, and guesses nothing:
// the migration completes as an ordinary one.
func TestIntrospectionRefusesAGuestForARM64(t *testing.T) {
	m := boot(t, setup{noAgent: true, backendArgs: []string{"--source=introspect"}})
	// After some quick looks fbppd reads all pages, to say why it finds no kernel.
	for why := ""; !strings.Contains(why, "for arm64"); time.Sleep(100 * time.Millisecond) {
		s, err := m.backend.Control.Status(m.ctx) // fails at the end of the test's time
		if err != nil {
			t.Fatalf("%v; the last reason was %q", err, why)
		}
		if s.Kernel != nil {
			why = s.Kernel.Why
		}
	}
	requireHints(t, m.migrate(), "refused")
	if !strings.Contains(m.earlier, "for arm64") {
		t.Errorf("fbppd does not say why:\n%s", m.earlier)
	}
	m.requireSound()
}

// A guest finds its memory intact after many migrations under load, with each kernel and size
// of pages.
func TestARM64KeepsItsMemory(t *testing.T) {
	for _, series := range guest.AllSeries() {
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, setup{series: series, memoryMiB: 768})
			for range rounds(4, 100) {
				m.awaitDriver()
				requireHints(t, m.migrate(), "ok")
				m.requireSound()
			}
		})
	}
}
