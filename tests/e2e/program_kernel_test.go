// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// patientDevice has a migration wait for a load, half of this time, also on a busy machine.
func patientDevice() map[string]string { return map[string]string{"hint-timeout": "60000"} }

// withdraw takes a program back, and waits until the guest has.
func (m *machine) withdraw(b *bundle.Bundle) {
	m.t.Helper()
	m.takeBack(b)
	m.awaitProgram(b, "withdrawn")
}

// takeBack takes a program back.
func (m *machine) takeBack(b *bundle.Bundle) {
	m.t.Helper()
	if _, err := m.backend.Control.WithdrawProgram(m.ctx, b.Offer.Digest.String()); err != nil {
		m.t.Fatal(err)
	}
}

// One object does for all kernels: it is injected, renewed, refused and withdrawn, with a
// migration after each. TestProgramOfTheHost has more of that on the kernel that is left out here.
func TestProgramOfTheHostOnOtherKernels(t *testing.T) {
	for _, series := range guest.AllSeries() {
		if series == guest.Default() {
			continue
		}
		t.Run(string(series), func(t *testing.T) {
			o := mustOwner(t)
			m := boot(t, setup{series: series, noAgent: true, files: o.files,
				device: patientDevice()})
			m.startBare()
			first, second := o.sign(o.object, 2, nil), o.sign(o.renewed(3), 3, nil)
			m.push(first, driver.AtMigration)
			// The migration waits for the load, and the verifier of Linux 7.3 takes long.
			m.integrity("pause")
			figures := m.migrate()
			m.integrity("resume")
			requireHints(t, figures, "ok")
			m.requireSound()
			m.awaitSession()
			if figures.Hints.Phase(source.PhaseInject) == 0 {
				t.Errorf("the phases are %+v", figures.Hints.Phases)
			}
			told := m.awaitProgram(first, "active")
			t.Logf("fetched in %d µs, loaded in %d µs", told.FetchUS, told.LoadUS)
			m.logLoads()

			m.push(second, driver.AtNow)
			m.awaitProgram(second, "active")
			m.requireMigration("ok")

			m.push(o.sign(o.unverifiable(), 9, nil), driver.AtMigration)
			m.requireMigration("ok") // by the one before
			m.push(first, driver.AtNow)
			if p := m.awaitProgram(first, "refused"); !strings.Contains(p.Reason, "newer version") {
				t.Errorf("a lower version is refused by %q", p.Reason)
			}
			m.awaitProgram(second, "active")
			m.requireMigration("ok")

			census := o.make(protocol.KindCensus, 1)
			m.push(census, driver.AtNow)
			m.awaitProgram(census, "active")
			m.requireAgreement(census)
			m.requireMigration("ok")

			m.withdraw(second)
			m.requireMigration("refused")
		})
	}
}

// Since Linux 7.3 /proc/buddyinfo is printed without zone->lock. Where the owner allows a walk
// there only, each is refused, and the host is told why. A census needs no lock, and is taken.
// Migrations go on: with what the host finds itself, or as if there were no device.
func TestWalkWithoutALockIsRefused(t *testing.T) {
	const policy = `{"key_dir": "/keys", "limits": {"attach_points": ["frag_show"]}}`
	o := mustOwner(t)
	o.setPolicy(policy)
	m := boot(t, setup{series: guest.Linux7_3, noAgent: true, files: o.files,
		backendArgs: []string{"--source=auto"}})
	m.startBare()
	walk, census := o.sign(o.object, 2, nil), o.make(protocol.KindCensus, 1)
	m.push(walk, driver.AtNow)
	p := m.awaitProgram(walk, "refused")
	t.Logf("the host is told: %s", p.Reason)
	if !strings.Contains(p.Reason, "without zone->lock") {
		t.Errorf("a walk without a lock is refused by %q", p.Reason)
	}
	m.push(census, driver.AtNow)
	m.awaitProgram(census, "active")
	m.guestCensus(census)

	m.setup.backendArgs = nil // the next host does not look for itself
	if err := m.backend.AwaitKernel(m.ctx); err != nil {
		t.Fatal(err)
	}
	if figures := m.requireMigration("ok"); figures.Hints.Source != vm.SourceIntrospect {
		t.Errorf("%q answered, want %q", figures.Hints.Source, vm.SourceIntrospect)
	}
	m.awaitProgram(census, "active")
	m.push(walk, driver.AtMigration)
	m.requireMigration("refused")
	m.awaitProgram(census, "active")
	m.guestCensus(census)
}
