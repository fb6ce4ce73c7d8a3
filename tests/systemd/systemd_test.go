// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// A Debian in which the packages were installed, and nothing else was done, migrates without
// its free memory: udev starts the agent at boot, after the package was installed anew, and
// when the device is plugged in. The units of the host run there, too.
func TestPackagesInABootedDebian(t *testing.T) {
	for _, suite := range strings.Fields(*suites) {
		t.Run(suite, func(t *testing.T) {
			m := install(t, suite)
			m.boot()
			m.requireAgentOfUdev()
			m.hostUnits()
			m.apparmor()
			m.migrate()
			m.installAnew()
			m.plugInAnew()
			m.requireNothingFailed()
		})
	}
}

// awaitAgent waits until an agent that the service has started is ready.
func (m *machine) awaitAgent() {
	m.t.Helper()
	state, err := m.backend.AwaitDriver(m.ctx)
	if err != nil || state != "ready" {
		m.t.Fatalf("the driver is %q: %v", state, err)
	}
}

// requireAgentOfUdev checks that the service runs although nothing has enabled it, and that
// its unit takes nothing from it that it needs.
func (m *machine) requireAgentOfUdev() {
	m.t.Helper()
	m.awaitAgent()
	show := m.run("/usr/bin/systemctl", "show", "fbpp-agent.service",
		"-p", "ActiveState,UnitFileState,NRestarts,Result")
	for _, want := range []string{
		"ActiveState=active", "UnitFileState=disabled", "NRestarts=0", "Result=success",
	} {
		if !strings.Contains(show, want) {
			m.t.Errorf("the service has no %s:\n%s", want, show)
		}
	}
	m.requireLogWithout("\twarn\t", "\terror\t")
	s, err := m.backend.Control.Status(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	if s.Driver.Port {
		m.t.Error("the agent has no device, and uses the serial port")
	}
	if s.CacheDrop == nil || !s.CacheDrop.Possible {
		m.t.Errorf("the agent may not drop cache: %+v", s.CacheDrop)
	}
}

// requireNothingFailed checks that no unit of ours has failed, and that nothing was denied to the
// agent.
func (m *machine) requireNothingFailed() {
	m.t.Helper()
	failed := m.run("/usr/bin/systemctl", "--failed", "--plain", "--no-legend", "list-units", "fbpp*")
	if failed != "" {
		m.t.Errorf("units have failed:\n%s", failed)
	}
	m.requireLogWithout("denied", "not permitted")
}

// requireLogWithout checks that no word is in the log of the agent's service.
func (m *machine) requireLogWithout(words ...string) {
	m.t.Helper()
	said := m.run("/usr/bin/journalctl", "-b", "--no-pager", "-o", "cat", "-u", "fbpp-agent.service")
	for _, word := range words {
		if strings.Contains(said, word) {
			m.t.Errorf("the agent's log has %q:\n%s", word, said)
		}
	}
}

// migrate moves the guest, which keeps most of what is free to itself.
func (m *machine) migrate() {
	m.t.Helper()
	if _, err := m.vm.Fill(m.ctx, memoryMiB/2); err != nil { // free pages are not zero then
		m.t.Fatal(err)
	}
	if err := m.vm.StartIntegrity(m.ctx, memory.PoolOptions{Pages: 8192, Seed: 1}); err != nil {
		m.t.Fatal(err)
	}
	free, err := m.vm.Memory(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	backend := m.startBackend()
	config := m.config
	config.Backend = backend.Socket
	to, err := vm.StartIncoming(m.ctx, config)
	if err != nil {
		m.t.Fatal(err)
	}
	figures, err := m.vm.Migrate(m.ctx, to, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if figures.Status != "completed" || figures.HintStatus() != "ok" {
		m.t.Fatalf("the migration is %+v, with hints %+v", figures, figures.Hints)
	}
	after, err := to.Memory(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	buddy := min(free.Buddy, after.Buddy) // units may start and end meanwhile
	m.t.Logf("skipped %d MiB of %d MiB free", figures.Hints.Skipped>>8, buddy>>8)
	if figures.Hints.Skipped*100 < buddy*95 {
		m.t.Errorf("skipped %d pages of %d that were free", figures.Hints.Skipped, buddy)
	}
	m.vm.Close()
	m.vm, m.backend, m.config = to, backend, config
	m.awaitAgent()
	r, err := m.vm.Integrity(m.ctx, "verify")
	if err != nil || r.Mismatched != 0 || r.Error != "" || r.Verified == 0 {
		m.t.Fatalf("the guest's memory is damaged: %+v, %v", r, err)
	}
}

// installAnew purges the agent's package and installs it again: the device that is there
// starts the service.
func (m *machine) installAnew() {
	m.t.Helper()
	m.run("/usr/bin/dpkg", "--purge", "fbpp-agent")
	m.awaitNoAgent()
	m.shell("dpkg -i /packages/fbpp-agent_*.deb")
	m.awaitAgent()
}

// awaitNoAgent waits until fbppd has no driver.
func (m *machine) awaitNoAgent() {
	m.t.Helper()
	m.await("the agent to end", func() bool {
		s, err := m.backend.Control.Status(m.ctx)
		return err == nil && s.Driver == nil
	})
}

// plugInAnew stops the agent, which stays stopped although its device is bound to another driver
// then. It takes the device away, and plugs it in: that starts the agent.
func (m *machine) plugInAnew() {
	m.t.Helper()
	m.run("/usr/bin/systemctl", "stop", "fbpp-agent.service")
	m.awaitNoAgent()
	m.run("/usr/bin/udevadm", "settle")
	if is := m.run("/usr/bin/systemctl", "show", "fbpp-agent.service", "-p", "ActiveState"); is !=
		"ActiveState=inactive" {
		m.t.Errorf("the service was stopped, and is %q", is)
	}
	device := map[string]any{"id": "fbpp0"}
	if err := m.vm.Execute(m.ctx, "device_del", device, nil); err != nil {
		m.t.Fatal(err)
	}
	const bound = "grep -lx 0x107f /sys/bus/pci/devices/*/device || true"
	m.await("the device to go", func() bool { return m.shell(bound) == "" })
	plug := map[string]any{"driver": "vhost-user-fbpp-pci", "id": "fbpp0", "bus": rootPort,
		"chardev": "fbpp", "hint-timeout": 20000}
	for { // for a moment QEMU still has the old one
		err := m.vm.Execute(m.ctx, "device_add", plug, nil)
		if err == nil {
			break
		}
		if m.ctx.Err() != nil || !strings.Contains(err.Error(), "Duplicate") &&
			!strings.Contains(err.Error(), "in use") {
			m.t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.awaitAgent()
}
