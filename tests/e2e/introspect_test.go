// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// A paused guest cannot answer, but the host can read its memory. So the free
// pages are also skipped when a management tool saves a paused guest to a file.
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

// A guest with QEMU's vmcoreinfo device says where its kernel is. QEMU passes that on
// to each fbppd, also after a migration.
func TestKernelIsFoundByItsVmcoreinfo(t *testing.T) {
	m := boot(t, setup{
		introspect: true, noIntegrity: true,
		devices: []string{"vmcoreinfo"}, modules: []string{"qemu_fw_cfg"},
	})
	found := func(when string) {
		t.Helper()
		if err := m.backend.AwaitKernel(m.ctx); err != nil {
			t.Fatal(err)
		}
		s, err := m.backend.Control.Status(m.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.Kernel.FoundBy != "vmcoreinfo" {
			t.Errorf("%s: the kernel was found by %q", when, s.Kernel.FoundBy)
		}
	}
	// fbppd may have found the kernel before that kernel said anything.
	m.backend.Kill()
	if err := m.backend.Restart(m.ctx); err != nil {
		t.Fatal(err)
	}
	found("to a new fbppd")
	requireHints(t, m.migrate(), "ok")
	found("after a migration")
}

// With --source=auto fbppd asks the agent first. If there is no agent, or it does
// not answer, fbppd reads the guest's memory itself. The cases share one guest.
func TestAutoAsksTheAgentFirst(t *testing.T) {
	m := boot(t, setup{
		noAgent: true, backendArgs: []string{"--source=auto"},
		device: map[string]string{"hint-timeout": "12000"},
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

// A kernel that checks the content of its free pages is recognized by
// introspection, too.
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
				t.Errorf("fbppd does not log the reason:\n%s", m.earlier)
			}
		})
	}
}

// After a reset the old kernel's data are still in memory. But the firmware and
// the next kernel are loaded into the pages that these data call free. fbppd must not
// trust them.
func TestKernelFromBeforeAResetIsNotUsed(t *testing.T) {
	s := setup{introspect: true, noIntegrity: true}
	m := boot(t, s)
	random := random(t)
	for range rounds(6, 60) {
		// This QEMU was started with -no-reboot: a reset would be its end.
		reset := map[string]any{"reboot": "reset"}
		if err := m.vm.Execute(m.ctx, "set-action", reset, nil); err != nil {
			t.Fatal(err)
		}
		// The guest tells the QEMU it runs in that it has booted. That may be the
		// destination, so the destination has to listen before the reset.
		dst, backend := m.destination()
		m.execute("system_reset")
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		if err := m.vm.StartMigration(m.ctx, dst, 0); err != nil {
			t.Fatal(err)
		}
		figures := m.arrive(dst, backend)
		// If a page were lost, the new kernel would probably not boot.
		err := m.boots()
		if err != nil && figures.HintStatus() == "refused" && m.config.Accel == vm.TCG {
			// No page was skipped: see vm.RetryBoot.
			t.Logf("the guest was lost while it booted, go on with another: %v", err)
			m = boot(t, s)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		// It depends on how far the new kernel was.
		switch status := figures.HintStatus(); status {
		case "ok", "refused":
			t.Logf("hints: %s", status)
		default:
			t.Errorf("hints ended with status %q", status)
		}
		m.awaitDriver()
	}
	requireHints(t, m.migrate(), "ok")
}

// boots waits until a guest that was reset has booted.
func (m *machine) boots() error {
	ctx, cancel := context.WithTimeout(m.ctx, bootTimeout)
	defer cancel()
	_, err := m.vm.Boot(ctx)
	return err
}

// stopAgent stops the agent with SIGSTOP, for the rest of the test.
func (m *machine) stopAgent() {
	m.t.Helper()
	m.signalAgent(syscall.SIGSTOP)
}
