// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/tests/lab"
)

// startTaking starts an agent with its built-in walk, which takes programs.
func (m *machine) startTaking() {
	m.t.Helper()
	err := m.vm.Spawn(m.ctx, agentName, lab.AgentPath, "--program-policy=/policy.json",
		"--program-accepted=/accepted.json")
	if err != nil {
		m.t.Fatal(err)
	}
	m.awaitSession()
}

// guestCensus has the guest count, by that program.
func (m *machine) guestCensus(by *bundle.Bundle) *census.Census {
	m.t.Helper()
	c, err := m.backend.Control.GuestCensus(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	if c.Program == nil || c.Program.Digest != by.Offer.Digest.String() {
		m.t.Fatalf("counted by %+v, want %v", c.Program, by.Offer.Digest)
	}
	m.t.Logf("counted in %d us by %d runs, the longest of %d us", c.CountedUS, c.Program.Runs,
		c.Program.RunMaxUS)
	return c
}

// requireAgreement compares what the guest counts with what the host does.
func (m *machine) requireAgreement(by *bundle.Bundle) {
	m.t.Helper()
	m.integrity("pause") // it takes and frees memory without end
	defer m.integrity("resume")
	before := m.guestCensus(by)
	host, err := m.backend.Control.Census(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	after := m.guestCensus(by)
	for class := range pages.Classes {
		slack := uint64(128)
		switch class {
		case pages.Free, pages.Anonymous, pages.Unknown:
			slack = 2048 // the agent and the control program allocate meanwhile
		}
		a, b, h := pagesOf(before, class), pagesOf(after, class), pagesOf(host, class)
		m.t.Logf("%v: %d and %d pages, the host counts %d", class, a, b, h)
		if h+slack < min(a, b) || h > max(a, b)+slack {
			m.t.Errorf("%v: %d and %d pages, the host counts %d", class, a, b, h)
		}
	}
}

// A guest counts its pages by a program of the host, beside its built-in walk, and as the host
// does. The program is pushed, renewed, refused and withdrawn while the guest runs, and goes
// along in a migration.
func TestCensusByTheGuest(t *testing.T) {
	o := mustOwner(t)
	m := boot(t, setup{noAgent: true, files: o.files})
	m.startTaking()
	if _, err := m.backend.Control.GuestCensus(m.ctx); err == nil {
		t.Error("a guest without a census has counted")
	}
	first := o.make(protocol.KindCensus, 2)
	m.push(first, driver.AtNow)
	told := m.awaitProgram(first, "active")
	t.Logf("fetched in %d us, loaded in %d us", told.FetchUS, told.LoadUS)
	m.requireAgreement(first)

	second := o.make(protocol.KindCensus, 3)
	m.push(second, driver.AtNow)
	m.awaitProgram(second, "active")
	m.awaitProgram(first, "withdrawn")
	older := o.make(protocol.KindCensus, 1)
	m.push(older, driver.AtNow)
	if p := m.awaitProgram(older, "refused"); !strings.Contains(p.Reason, "newer version") {
		t.Errorf("a lower version is refused by %q", p.Reason)
	}
	walk := o.sign(mustObject(t, protocol.KindCensus), 9, nil)
	m.push(walk, driver.AtNow)
	if p := m.awaitProgram(walk, "refused"); !strings.Contains(p.Reason, "does not allow") {
		t.Errorf("a census as a walk is refused by %q", p.Reason)
	}
	m.guestCensus(second)

	counting := make(chan error, 1)
	backend := m.backend
	go func() { // a migration ends it, or it is answered before
		_, err := backend.Control.GuestCensus(m.ctx)
		counting <- err
	}()
	m.requireMigration("ok")
	if err := <-counting; err != nil && !strings.Contains(err.Error(), "migration") &&
		!strings.Contains(err.Error(), "session has ended") {
		t.Errorf("the census in the migration: %v", err)
	}
	m.awaitProgram(second, "active") // the next host is told
	m.guestCensus(second)
	if _, err := m.backend.Control.WithdrawProgram(m.ctx, second.Offer.Digest.String()); err != nil {
		t.Fatal(err)
	}
	m.awaitProgram(second, "withdrawn")
	if _, err := m.backend.Control.GuestCensus(m.ctx); err == nil {
		t.Error("a guest whose census was withdrawn has counted")
	}
}
