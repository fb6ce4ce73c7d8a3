// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/driver-ebpf/program"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// freezer is the name under which the guest's init runs what stops a load.
const freezer = "freezer"

// freezeLoad offers a program, and has the guest stop the child that loads it.
func (m *machine) freezeLoad(b *bundle.Bundle) {
	m.t.Helper()
	if err := m.vm.Spawn(m.ctx, freezer, "/init", "freeze", program.ChildArg); err != nil {
		m.t.Fatal(err)
	}
	m.push(b, driver.AtNow)
	for stopped := ""; stopped == ""; time.Sleep(time.Millisecond) {
		r, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpOutput, Name: freezer})
		if err != nil {
			m.t.Fatal(err)
		}
		stopped = r.Output
	}
	m.awaitProgram(b, "loading")
}

// thaw lets the load go on.
func (m *machine) thaw() {
	m.t.Helper()
	if _, err := m.vm.Tell(m.ctx, freezer, ""); err != nil {
		m.t.Fatal(err)
	}
	r, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpWait, Name: freezer})
	if err != nil || r.Exit != 0 {
		m.t.Fatalf("the freezer ended with %+v, %v", r, err)
	}
}

// holdAgent has events wait for the agent, in their order, until letGo.
func (m *machine) holdAgent() { m.t.Helper(); m.signalAgent(syscall.SIGSTOP) }

func (m *machine) letGo() { m.t.Helper(); m.signalAgent(syscall.SIGCONT) }

// startWaiting begins a migration that waits for the agent, which is stopped.
func (m *machine) startWaiting() (*vm.VM, *vm.Backend) {
	m.t.Helper()
	dst, backend := m.startMigration(0)
	m.awaitRequest()
	return dst, backend
}

// requireArrival waits for the end of a migration, and checks it as requireMigration does.
func (m *machine) requireArrival(dst *vm.VM, backend *vm.Backend, status string) {
	m.t.Helper()
	requireHints(m.t, m.arrive(dst, backend), status)
	m.requireSound()
	m.awaitSession()
}

// requireArrivalAt migrates to a host that offers a program.
func (m *machine) requireArrivalAt(status string, b *bundle.Bundle, at driver.When) {
	m.t.Helper()
	dst, backend := m.destination()
	if _, err := backend.Control.PushProgram(m.ctx, b.Encode(), at); err != nil {
		m.t.Fatal(err)
	}
	if err := m.vm.StartMigration(m.ctx, dst, 0); err != nil {
		m.t.Fatal(err)
	}
	m.requireArrival(dst, backend, status)
}

// awaitBare waits until the guest says that it has no walk.
func (m *machine) awaitBare() {
	m.t.Helper()
	for {
		s, err := m.backend.Control.Status(m.ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		if s.DriverState == "refuses" && s.Session != nil {
			for _, p := range s.Programs {
				if p.State == "active" {
					m.t.Fatalf("a guest without a walk has %+v", p)
				}
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// A guest moves in the middle of a load, also of the first one, in the middle of a renewal, and
// of a withdrawal. What was in use is used, what was under way is done at the next host, and the
// migration after that has hints.
func TestMigrationInTheMiddleOfAChangeOfPrograms(t *testing.T) {
	o := mustOwner(t)
	m := boot(t, setup{noAgent: true, files: o.files, timeout: 2 * hangTimeout})
	m.startBare()
	version := byte(1)
	next := func() *bundle.Bundle {
		version++
		return o.sign(o.renewed(version), uint64(version), nil)
	}
	inUse := next()
	for _, c := range []struct {
		name string
		f    func(t *testing.T)
	}{
		{"of the first load", func(t *testing.T) {
			m.freezeLoad(inUse)
			m.push(inUse, driver.AtMigration)
			m.setDevice("hint-timeout", 2000) // half of it is waited for the load
			dst, backend := m.startMigration(0)
			m.requireArrival(dst, backend, "refused")
			m.thaw()
			m.awaitProgram(inUse, "active")
		}},
		{"of a load", func(t *testing.T) {
			b := next()
			m.freezeLoad(b)
			m.requireMigration("ok")
			m.awaitProgram(inUse, "active")
			m.thaw()
			m.awaitProgram(b, "active")
			m.awaitProgram(inUse, "withdrawn")
			inUse = b
		}},
		{"of a load that the next host wants, too", func(t *testing.T) {
			b := next()
			m.freezeLoad(b)
			m.requireArrivalAt("ok", b, driver.AtNow)
			m.awaitProgram(b, "loading")
			m.thaw()
			m.awaitProgram(b, "active")
			inUse = b
		}},
		{"of a renewal", func(t *testing.T) { // the loaded program and the request come at once
			b := next()
			m.freezeLoad(b)
			m.holdAgent()
			dst, backend := m.startWaiting()
			m.thaw()
			m.letGo()
			m.requireArrival(dst, backend, "ok")
			m.awaitProgram(b, "active")
			inUse = b
		}},
		{"of a walk, with a withdrawal in it", func(t *testing.T) {
			m.holdAgent()
			dst, backend := m.startWaiting()
			m.takeBack(inUse)
			m.letGo()
			m.requireArrival(dst, backend, "ok")
			m.awaitBare()
		}},
		{"of a withdrawal", func(t *testing.T) {
			m.holdAgent()
			m.takeBack(inUse)
			dst, backend := m.startWaiting()
			m.letGo()
			m.requireArrival(dst, backend, "refused")
			m.awaitBare()
		}},
		{"of a withdrawal that the guest sees at the next host", func(t *testing.T) {
			m.setDevice("hint-timeout", 1000)
			m.holdAgent()
			m.takeBack(inUse)
			dst, backend := m.startMigration(0)
			requireHints(t, m.arrive(dst, backend), "driver-timeout")
			m.letGo()
			m.requireSound()
			m.awaitBare()
		}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			defer m.in(t)()
			c.f(t)
			s, err := m.backend.Control.Status(m.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if s.DriverState == "refuses" { // nothing is left to walk with
				inUse = next()
				m.renew(inUse)
			}
			m.requireMigration("ok")
			m.awaitProgram(inUse, "active")
		})
		if !ok {
			return // the next begins where this one should have ended
		}
	}
}

// renew has the guest use a program.
func (m *machine) renew(b *bundle.Bundle) {
	m.t.Helper()
	m.push(b, driver.AtNow)
	m.awaitProgram(b, "active")
}
