// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// A guest that is paused answers nobody. Its memory can be looked at all the same,
// so what management tools save skips its free memory, too.
func TestPausedGuestIsLookedAt(t *testing.T) {
	m := boot(t, setup{introspect: true})
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "state")
	for _, tc := range []struct {
		name     string
		transfer vm.Transfer
	}{
		{"to another QEMU", vm.Transfer{}},
		{"to a file", vm.Transfer{File: file}},
		{"to a file with a place for each page", vm.Transfer{
			Capabilities: []string{"mapped-ram"}, File: file + "m",
		}},
		{"to such a file by several channels", vm.Transfer{
			Capabilities: []string{"mapped-ram", "multifd"}, File: file + "s",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer m.in(t)()
			m.execute("stop")
			requireHints(t, m.migrateBy(tc.transfer), "ok")
			for _, c := range tc.transfer.Capabilities {
				m.capability(c, false)
			}
			m.execute("cont")
			m.requireSound()
			m.requireZeroes()
			m.awaitDriver()
		})
	}
}

// The agent is asked where it is there and able; where it is not, the host looks
// for itself. Each case goes on where the one before ended.
func TestAutoAsksTheAgentFirst(t *testing.T) {
	m := boot(t, setup{
		noAgent: true, backendArgs: []string{"--source=auto"},
		device: map[string]string{"hint-timeout": "5000"},
	})
	for _, tc := range []struct {
		name   string
		before func()
		source string
	}{
		{"no agent", func() {}, vm.SourceIntrospect},
		{"an agent", m.startAgent, vm.SourceDriver},
		{"an agent that does not answer", m.stopAgent, vm.SourceIntrospect},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer m.in(t)()
			if err := m.backend.AwaitKernel(m.ctx); err != nil {
				t.Fatal(err)
			}
			tc.before()
			figures := m.migrate()
			requireHints(t, figures, "ok")
			if figures.Hints.Source != tc.source {
				t.Errorf("%q answered, want %q", figures.Hints.Source, tc.source)
			}
			m.requireSound()
		})
	}
}

// What forbids to leave free pages out is seen from outside, too.
func TestGuestThatChecksFreePagesIsNotLookedAt(t *testing.T) {
	for _, source := range []string{"introspect", "auto"} {
		t.Run(source, func(t *testing.T) {
			m := boot(t, setup{
				noAgent: true, backendArgs: []string{"--source=" + source},
				kernelLine: []string{"page_poison=1"},
			})
			if err := m.backend.AwaitKernel(m.ctx); err != nil {
				t.Fatal(err)
			}
			requireHints(t, m.migrate(), "refused")
			m.requireSound()
			if !strings.Contains(m.earlier, "page_poison") {
				t.Errorf("fbppd says nothing of the reason:\n%s", m.earlier)
			}
		})
	}
}

// A reset leaves all of the kernel that is gone in memory, and its free pages are
// what the firmware and the next kernel are loaded to. It must not be believed.
func TestResetIsNotMistakenForTheKernelBefore(t *testing.T) {
	m := boot(t, setup{introspect: true, noIntegrity: true})
	random := random(t)
	for range rounds(6, 60) {
		// This QEMU was started with -no-reboot: a reset would be its end.
		reset := map[string]any{"reboot": "reset"}
		if err := m.vm.Execute(m.ctx, "set-action", reset, nil); err != nil {
			t.Fatal(err)
		}
		// It says that it has booted to the QEMU in which it is then.
		dst, backend := m.destination()
		m.execute("system_reset")
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		if err := m.vm.StartMigration(m.ctx, dst, 0); err != nil {
			t.Fatal(err)
		}
		figures := m.arrive(dst, backend)
		// Whoever boots now has memory that is not damaged, or it does not come up.
		if _, err := m.vm.Boot(m.ctx); err != nil {
			t.Fatal(err)
		}
		// Whether there were any depends on how far the next kernel was.
		t.Logf("hints: %s", figures.HintStatus())
		m.awaitDriver()
	}
	requireHints(t, m.migrate(), "ok")
}

// stopAgent stops the agent, so that it does not answer.
func (m *machine) stopAgent() {
	m.t.Helper()
	m.signalAgent(syscall.SIGSTOP)
}
