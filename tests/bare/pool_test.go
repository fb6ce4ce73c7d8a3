// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// A pool is a file with the RAM of a VM, which several of them map.

// newPool returns a name for one in shared memory. It is gone after the test.
func newPool(t testing.TB) string {
	t.Helper()
	dir, _ := lab.MustSharedDir(t)
	return filepath.Join(dir, "pool")
}

// onPool is a VM on a pool. The lease is on, off or force.
func onPool(pool, name, lease string) vm.Config {
	c := config("")
	c.Options = []string{"-name", name}
	return sized(c, c.MemoryMiB, pool, lease)
}

// sized gives a VM on a pool that much memory, in MiB.
func sized(c vm.Config, mib int, pool, lease string) vm.Config {
	c.MemoryMiB = mib
	c.Memory = []string{fmt.Sprintf(
		"memory-backend-file,id=ram,size=%dM,share=on,mem-path=%s,lease=%s", mib, pool, lease,
	)}
	return c
}

// startOnPool starts a VM, and fills a part of its memory with what no other run has.
func startOnPool(t testing.TB, pool, name string) *machine {
	t.Helper()
	m := start(t, onPool(pool, name, "on"))
	content := make([]byte, filledSize)
	_, _ = rand.Read(content) // never fails
	f, err := os.OpenFile(pool, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(content, filled); err != nil {
		t.Fatal(err)
	}
	return m
}

// requireNoStart checks that a VM does not start for the sake of a lease, and that QEMU says why
// in one line.
func requireNoStart(t testing.TB, c vm.Config, parts ...string) {
	t.Helper()
	requireRefusedStart(t, c, append(parts, "lease")...)
}

// requireRefusedStart checks that a VM does not start, and that QEMU says why in one line.
func requireRefusedStart(t testing.TB, c vm.Config, parts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	args := append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-m", fmt.Sprint(c.MemoryMiB),
		"-machine", "q35,accel=qtest,memory-backend=ram", "-object", c.Memory[0],
	}, c.Options...)
	said, err := exec.CommandContext(ctx, c.QEMU, args...).CombinedOutput()
	if err == nil || ctx.Err() != nil || bytes.Count(said, []byte("\n")) != 1 ||
		!containsAll(string(said), parts) {
		t.Fatalf("QEMU ended by %v, and said:\n%s\nwant one line with %q", err, said, parts)
	}
}

func containsAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// holder returns who has the lease, as QEMU tells.
func (m *machine) holder() string {
	m.t.Helper()
	var who string
	err := m.Execute(m.ctx, "qom-get",
		map[string]any{"path": "/objects/ram", "property": "lease-holder"}, &who)
	if err != nil {
		m.t.Fatal(err)
	}
	return who
}

// identity is what messages call a VM.
func (m *machine) identity() string {
	host, err := os.Hostname()
	if err != nil {
		m.t.Fatal(err)
	}
	return fmt.Sprintf("VM '%s', process %d on host '%s'", m.Config.Options[1], m.PID(), host)
}

// cont starts the processors.
func (m *machine) cont() error { return m.Execute(m.ctx, "cont", nil, nil) }

// requireRefused checks that an error has the parts.
func requireRefused(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil || !containsAll(err.Error(), parts) {
		t.Fatalf("QEMU says %v, want an error with %q", err, parts)
	}
}

// requireMemory checks that a machine's memory is as it was.
func (m *machine) requireMemory(want []byte) {
	m.t.Helper()
	if !bytes.Equal(want, m.memory()) {
		m.t.Error("memory is another than was written")
	}
}

// kill kills QEMU, and waits until it has ended.
func (m *machine) kill() {
	m.t.Helper()
	if err := m.VM.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// quit ends QEMU in order.
func (m *machine) quit() {
	m.t.Helper()
	m.execute("quit", nil)
	if err := m.Wait(m.ctx); err != nil {
		m.t.Fatal(err)
	}
}
