// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// A guest moves between hosts with different programs. It takes a newer one, refuses an older one
// and another one of the same version, and says why. Each host can have hints.
func TestHostsWithDifferentPrograms(t *testing.T) {
	o := mustOwner(t)
	m := boot(t, setup{noAgent: true, files: o.files, device: patientDevice()})
	m.startTaking()
	version := func(n byte) *bundle.Bundle { return o.sign(o.renewed(n), uint64(n), nil) }
	first := version(5)
	m.renew(first)

	newer := version(7)
	m.requireArrivalAt("ok", newer, driver.AtNow)
	m.awaitProgram(newer, "active")
	m.awaitProgram(first, "withdrawn")

	refused := func(b *bundle.Bundle, why string) {
		t.Helper()
		if p := m.awaitProgram(b, "refused"); !strings.Contains(p.Reason, why) {
			t.Errorf("version %d is refused by %q, want %q", b.Offer.Version, p.Reason, why)
		}
		m.awaitProgram(newer, "active")
	}
	older := version(6)
	m.requireArrivalAt("ok", older, driver.AtNow)
	refused(older, "newer version")

	same := o.sign(o.renewed(1), 7, nil)
	m.requireArrivalAt("ok", same, driver.AtNow)
	refused(same, "another object")

	m.requireArrivalAt("ok", first, driver.AtMigration) // it waits for the next migration
	newest := version(8)
	m.requireArrivalAt("ok", newest, driver.AtMigration) // which has hints without it
	m.awaitProgram(newer, "active")
	m.requireMigration("ok")
	m.awaitProgram(newest, "active") // from then on
}
