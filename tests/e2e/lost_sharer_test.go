// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// In postcopy QEMU also resolves the page faults of its backend. After the backend
// was killed, QEMU stops reading them, and the migration completes.
func TestBackendKilledDuringPostcopy(t *testing.T) {
	m := boot(t, setup{backendArgs: []string{"--sandbox=none"}})
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	m.capability("postcopy-ram", true)
	m.parameter("max-postcopy-bandwidth", 8<<20)
	dst, backend := m.destination()
	err := dst.Execute(m.ctx, "migrate-set-capabilities", capability("postcopy-ram", true), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.vm.StartMigration(m.ctx, dst, 8<<20); err != nil {
		t.Fatal(err)
	}
	m.awaitMigration("active")
	m.execute("migrate-start-postcopy")
	m.awaitMigration("postcopy-active")
	if err := dst.Arrive(m.ctx); err != nil {
		t.Fatal(err)
	}
	backend.Kill()
	m.awaitDisconnected(dst)
	m.awaitMigration("postcopy-active") // still

	m.parameter("max-postcopy-bandwidth", 1<<40)
	m.arrive(dst, backend)
	m.requireSound()
	const flood = "Failed to read full userfault message"
	if n := strings.Count(m.vm.Messages(), flood); n > 1 {
		t.Errorf("QEMU said %d times %q", n, flood)
	}
	if err := m.backend.Restart(m.ctx); err != nil {
		t.Fatal(err)
	}
	m.awaitDriver()
	m.capability("postcopy-ram", false)
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}

// parameter sets a migration parameter of the source.
func (m *machine) parameter(name string, value any) {
	m.t.Helper()
	err := m.vm.Execute(m.ctx, "migrate-set-parameters", map[string]any{name: value}, nil)
	if err != nil {
		m.t.Fatal(err)
	}
}

// awaitMigration waits until the source's migration has this status.
func (m *machine) awaitMigration(status string) {
	m.t.Helper()
	for {
		figures, err := m.vm.QueryMigrate(m.ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		if figures.Status == status {
			return
		}
		if figures.Ended() {
			m.t.Fatalf("the migration is %s, want %s: %s", figures.Status, status, figures.ErrorDesc)
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitDisconnected waits until a QEMU knows that its backend is gone.
func (m *machine) awaitDisconnected(v *vm.VM) {
	m.t.Helper()
	for {
		var all []struct{ Label, Filename string }
		if err := v.Execute(m.ctx, "query-chardev", nil, &all); err != nil {
			m.t.Fatal(err)
		}
		for _, c := range all {
			if c.Label == "fbpp" && strings.HasPrefix(c.Filename, "disconnected:") {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
}
