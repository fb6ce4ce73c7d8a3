// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// Each of these migrations completes without hints, and QEMU says why there were
// none. The next migration of the same guest has hints again.
func TestMigrationWithoutHints(t *testing.T) {
	for _, tc := range []struct {
		name   string
		setup  setup
		before func(m *machine) // makes hints impossible
		status string
		after  func(m *machine) // makes them possible, at the destination; nil: they are
	}{
		{
			name:   "no agent runs in the guest",
			setup:  setup{noAgent: true},
			status: "no-driver",
			after:  (*machine).startAgent,
		},
		{
			name:   "the agent was killed",
			before: func(m *machine) { m.signalAgent(syscall.SIGKILL); m.waitAgent() },
			status: "no-driver",
			after:  (*machine).startAgent,
		},
		{
			// QEMU must not read the rings, because the guest has reused their memory.
			name: "the agent was killed, and its memory was reused",
			before: func(m *machine) {
				m.signalAgent(syscall.SIGKILL)
				m.waitAgent()
				m.fillFree()
			},
			status: "no-driver",
			after:  (*machine).startAgent,
		},
		{
			name:   "the agent is stopped",
			setup:  setup{device: map[string]string{"hint-timeout": "2000"}},
			before: func(m *machine) { m.signalAgent(syscall.SIGSTOP) },
			status: "driver-timeout",
			after: func(m *machine) {
				m.signalAgent(syscall.SIGCONT)
				m.setDevice("hint-timeout", 20000)
			},
		},
		{
			name:   "fbppd was killed before",
			before: func(m *machine) { m.backend.Kill() },
			status: "no-backend",
		},
		{
			name:   "hints are switched off in QEMU",
			before: func(m *machine) { m.setDevice("hints", false) },
			status: "disabled",
		},
		{
			name:   "hints are switched off at fbppd",
			before: func(m *machine) { m.switchBackend("disable") },
			status: "backend-disabled",
		},
		{
			name:   "fbppd was started switched off",
			setup:  setup{backendArgs: []string{"--disabled"}},
			status: "backend-disabled",
			after:  func(m *machine) { m.switchBackend("enable") },
		},
		{
			name:   "the guest is paused",
			before: func(m *machine) { m.execute("stop") },
			status: "not-running",
			after:  func(m *machine) { m.execute("cont") },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := boot(t, tc.setup)
			if tc.before != nil {
				tc.before(m)
			}
			requireHints(t, m.migrate(), tc.status)
			if tc.after != nil {
				tc.after(m)
			}
			m.requireSound()
			m.awaitDriver()
			requireHints(t, m.migrate(), "ok")
			m.requireSound()
		})
	}
}

func TestFBPPDKilledDuringTheExchange(t *testing.T) {
	m := boot(t, setup{})
	m.signalAgent(syscall.SIGSTOP) // holds the request open
	dst, backend := m.startMigration(0)
	m.awaitRequest()
	m.backend.Kill()
	figures := m.arrive(dst, backend)
	requireHints(t, figures, "no-backend")
	m.signalAgent(syscall.SIGCONT)
	m.requireSound()
	m.awaitDriver()
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}

func TestFBPPDKilledAfterTheExchange(t *testing.T) {
	m := boot(t, setup{})
	dst, backend := m.startMigration(1 << 20)
	m.awaitHints("ok")
	m.backend.Kill()
	m.speedUp()
	requireHints(t, m.arrive(dst, backend), "ok")
	m.requireSound()
	m.awaitDriver()
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}

func TestFBPPDRestarted(t *testing.T) {
	m := boot(t, setup{})
	for range 3 {
		m.backend.Kill()
		if err := m.backend.Restart(m.ctx); err != nil {
			t.Fatal(err)
		}
		m.awaitDriver() // QEMU connects, and the agent says hello again
	}
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}

func TestAgentRestarted(t *testing.T) {
	m := boot(t, setup{})
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		m.signalAgent(s)
		m.waitAgent()
		m.startAgent()
	}
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}

func TestMigrationCancelledDuringTheExchange(t *testing.T) {
	m := boot(t, setup{})
	m.signalAgent(syscall.SIGSTOP)
	dst, backend := m.startMigration(0)
	m.awaitRequest()
	if err := m.vm.CancelMigration(m.ctx); err != nil {
		t.Fatal(err)
	}
	dst.Close()
	backend.Close()
	m.signalAgent(syscall.SIGCONT)
	m.requireSound() // on the source, where the guest stayed

	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}

func TestMigrationCancelledAfterTheExchange(t *testing.T) {
	m := boot(t, setup{})
	dst, backend := m.startMigration(1 << 20)
	m.awaitHints("ok")
	if err := m.vm.CancelMigration(m.ctx); err != nil {
		t.Fatal(err)
	}
	dst.Close()
	backend.Close()
	// The second migration has to ask again: pages that were free at the first
	// question may be in use by now.
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}

func TestDestinationWithoutTheDevice(t *testing.T) {
	m := boot(t, setup{})
	// With a return path the source learns that the destination failed.
	m.capability("return-path", true)
	dst, backend := m.start(vm.StartIncoming, func(c *vm.Config) { c.Backend = "" })
	defer backend.Close()
	err := dst.Execute(m.ctx, "migrate-set-capabilities", capability("return-path", true), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.vm.StartMigration(m.ctx, dst, 0); err != nil {
		t.Fatal(err)
	}
	figures, err := m.vm.WaitMigration(m.ctx, nil)
	if err != nil || figures.Status != "failed" {
		t.Fatalf("the migration ended as %+v, %v, want it failed", figures, err)
	}
	if err := dst.Wait(m.ctx); err == nil {
		t.Error("the destination ended without an error")
	}
	missing := "Unknown savevm section or instance"
	if parts.IsAtLeast(10, 2) {
		missing = "Unknown section or instance"
	}
	if said := dst.Messages(); !strings.Contains(said, missing) {
		t.Errorf("the destination said %q, not what QEMU says of a missing device", said)
	}
	m.requireSound() // on the source
	m.capability("return-path", false)
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}
