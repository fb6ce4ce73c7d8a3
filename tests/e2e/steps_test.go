// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os/exec"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/guest/memory"
)

// Steps of tests: each does one thing to a machine, and ends the test if that
// fails.

// execute runs a QMP command that needs no arguments.
func (m *machine) execute(command string) {
	m.t.Helper()
	if err := m.vm.Execute(m.ctx, command, nil, nil); err != nil {
		m.t.Fatal(err)
	}
}

// setDevice sets a property of the device, for this QEMU only.
func (m *machine) setDevice(property string, value any) {
	m.t.Helper()
	if err := m.vm.SetDevice(m.ctx, property, value); err != nil {
		m.t.Fatal(err)
	}
}

// switchBackend runs "fbppctl enable" or "fbppctl disable".
func (m *machine) switchBackend(command string) {
	m.t.Helper()
	path := "--control-path=" + m.backend.ControlPath
	out, err := exec.CommandContext(m.ctx, parts.FBPPCtl, path, command).CombinedOutput()
	if err != nil {
		m.t.Fatalf("fbppctl %s: %v\n%s", command, err, out)
	}
}

// waitAgent waits until the agent's process has ended.
func (m *machine) waitAgent() {
	m.t.Helper()
	if _, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpWait, Name: agentName}); err != nil {
		m.t.Fatal(err)
	}
}

// fillFree has the guest write most of its free memory, and free it again.
func (m *machine) fillFree() {
	m.t.Helper()
	if _, err := m.vm.Fill(m.ctx, int(m.memory().Buddy*memory.PageSize>>20)*9/10); err != nil {
		m.t.Fatal(err)
	}
}

// awaitRequest waits until fbppd has asked the guest.
func (m *machine) awaitRequest() {
	m.t.Helper()
	if err := m.backend.AwaitRequest(m.ctx); err != nil {
		m.t.Fatal(err)
	}
}

// awaitHints waits until the exchange of the running migration has ended, and
// checks its status.
func (m *machine) awaitHints(status string) {
	m.t.Helper()
	for {
		figures, err := m.vm.QueryMigrate(m.ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		if figures.Hints != nil {
			requireHints(m.t, figures, status)
			return
		}
		if figures.Ended() {
			m.t.Fatalf("the migration %s before hints were taken: %s", figures.Status, figures.ErrorDesc)
		}
		time.Sleep(time.Millisecond)
	}
}

// speedUp takes the bandwidth limit off the running migration.
func (m *machine) speedUp() {
	m.t.Helper()
	err := m.vm.Execute(m.ctx, "migrate-set-parameters",
		map[string]any{"max-bandwidth": int64(1) << 40}, nil)
	if err != nil {
		m.t.Fatal(err)
	}
}

// capability returns the arguments of migrate-set-capabilities that set one
// capability.
func capability(name string, on bool) map[string]any {
	return map[string]any{"capabilities": []any{map[string]any{"capability": name, "state": on}}}
}

// capability sets a migration capability of the source.
func (m *machine) capability(name string, on bool) {
	m.t.Helper()
	if err := m.vm.Execute(m.ctx, "migrate-set-capabilities", capability(name, on), nil); err != nil {
		m.t.Fatal(err)
	}
}
