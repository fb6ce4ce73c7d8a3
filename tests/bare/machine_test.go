// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// hangTimeout ends a test that hangs. It asserts no speed.
const hangTimeout = 2 * time.Minute

// low is where the driver's queues are unless a test says otherwise.
const low = 1 << 20

// machine is a VM whose memory and registers the test reads and writes over qtest.
type machine struct {
	*vm.VM
	*qtest
	Config vm.Config // without the options of qtest
	t      testing.TB
	ctx    context.Context
}

// config is a VM with the device and shared memory, and no guest. backend-timeout is
// long so that a busy host fails no test. A test of the timeout shortens it.
func config(backend string) vm.Config {
	return vm.Config{
		QEMU:      parts.QEMU,
		Accel:     "qtest",
		CPU:       "qemu64",
		Firmware:  "bios-256k.bin", // does not run: with qtest there is no processor
		MemoryMiB: 64,
		Backend:   backend,
		Device:    map[string]string{"addr": fmt.Sprintf("%#x", slot), "backend-timeout": "20000"},
	}
}

// start starts a machine. It ends with the test.
func start(t testing.TB, c vm.Config) *machine { return startAs(t, c, vm.Start) }

// startIncoming starts the destination of a migration.
func startIncoming(t testing.TB, c vm.Config) *machine { return startAs(t, c, vm.StartIncoming) }

func startAs(
	t testing.TB, c vm.Config, how func(context.Context, vm.Config) (*vm.VM, error),
) *machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "fbpp-qtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	with := c
	with.Options = append([]string{"-qtest", "unix:" + path, "-qtest-log", "none"}, c.Options...)
	v, err := how(ctx, with)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept() // does not block: QEMU has connected before its monitor did
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("QEMU said:\n%s", v.Messages())
		}
		conn.Close()
		v.Close()
	})
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	return &machine{VM: v, qtest: newQTest(t, conn), Config: c, t: t, ctx: ctx}
}

// startFBPPD starts an fbppd with options. It ends with the test.
func startFBPPD(t testing.TB, options ...string) *vm.Backend {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	b, err := vm.StartBackend(ctx, parts.FBPPD, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("fbppd said:\n%s", b.Log())
		}
		b.Close()
	})
	return b
}

// execute runs a monitor command.
func (m *machine) execute(command string, args map[string]any) {
	m.t.Helper()
	var arguments any // stays nil: an interface that holds a nil map is not nil
	if args != nil {
		arguments = args
	}
	if err := m.Execute(m.ctx, command, arguments, nil); err != nil {
		m.t.Fatalf("%v\n%s", err, m.Messages())
	}
}

// setTimeout sets how long QEMU waits for the backend, in milliseconds.
func (m *machine) setTimeout(ms int) {
	m.t.Helper()
	if err := m.SetDevice(m.ctx, "backend-timeout", ms); err != nil {
		m.t.Fatal(err)
	}
}

// await waits until ready returns true, and fails when the test's time is up.
func (m *machine) await(what string, ready func() bool) {
	m.t.Helper()
	for !ready() {
		select {
		case <-m.ctx.Done():
			m.t.Fatalf("waited in vain until %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// awaitSaid waits until QEMU's log has the text n times.
func (m *machine) awaitSaid(text string, n int) {
	m.t.Helper()
	m.await(fmt.Sprintf("QEMU says %q %d times", text, n), func() bool {
		return m.countSaid(text) >= n
	})
}

func (m *machine) countSaid(text string) int { return strings.Count(m.Messages(), text) }

// requireSaid checks QEMU's whole log: line i has to contain parts[i], and there are
// no further lines.
func (m *machine) requireSaid(parts ...string) {
	m.t.Helper()
	lines := strings.Split(strings.TrimSpace(m.Messages()), "\n")
	if lines[0] == "" {
		lines = nil
	}
	for i, line := range lines {
		if i >= len(parts) || !strings.Contains(line, parts[i]) {
			m.t.Fatalf("QEMU said:\n%s\nwant lines with %q", m.Messages(), parts)
		}
	}
	if len(lines) != len(parts) {
		m.t.Fatalf("QEMU said:\n%s\nwant lines with %q", m.Messages(), parts)
	}
}

// requireRuns checks that the monitor answers and the VM runs.
func (m *machine) requireRuns() {
	m.t.Helper()
	if status, err := m.Status(m.ctx); err != nil || status != "running" {
		m.t.Fatalf("QEMU is %q, %v\n%s", status, err, m.Messages())
	}
}

// awaitStarted waits until QEMU has started a backend. The sign of that is that the
// backend has mapped guest memory.
func (m *machine) awaitStarted(b *vm.Backend) {
	m.t.Helper()
	m.await("the backend has the queues", func() bool { return mapped(m.t, b) > 0 })
}

// mapped counts the mappings of guest memory that a backend has.
func mapped(t testing.TB, b *vm.Backend) int {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", b.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), "memfd:memory-backend-memfd") +
		strings.Count(string(maps), lab.SharedDirPrefix)
}

// migrate migrates the machine, and returns the figures of the completed migration.
func (m *machine) migrate(dst *machine, by vm.Transfer) *vm.Migration {
	m.t.Helper()
	figures, err := m.MigrateBy(m.ctx, dst.VM, by, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	return figures
}
