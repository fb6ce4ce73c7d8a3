// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"bufio"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/stock/relay"
	"github.com/fbpp-project/fbpp/tests/stock/writes"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// startWatched starts the block backend behind a relay. The relay learns from the kernel
// which pages the backend writes.
func startWatched(t *testing.T, content string) (*relay.Relay, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fbpp-relay-") // short, for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "vhost-user-blk")
	err = writes.Inject(t.Context(), "../../vhostuser/examples/vhost-user-blk", program)
	if err != nil {
		t.Fatal(err)
	}
	ordersOut, orders, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, answersIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	blk := newBackend(t, program, "--blk-file="+content)
	blk.stdin, blk.stdout = ordersOut, answersIn
	blk.start()
	for _, f := range []*os.File{ordersOut, answersIn} {
		f.Close() // the process has descriptors of its own
	}
	t.Cleanup(func() { orders.Close(); answers.Close() })

	watch := &writes.Process{
		PID: blk.cmd.Process.Pid, Orders: orders, Answers: bufio.NewReader(answers),
	}
	if err := watch.Begin(); err != nil {
		t.Skipf("the log cannot be checked without userfaultfd's asynchronous write protection,"+
			" Linux 6.7: %v", err)
	}
	path := filepath.Join(dir, "relay.sock")
	r, err := relay.Start(path, blk.socket, watch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	return r, path
}

func TestMigrationWithItsLogChecked(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { testMigration(t, k) })
	}
}

func testMigration(t *testing.T, k kind) {
	content := newDisk(t)
	r, socket := startWatched(t, content)
	c := withDevices(k.series, device{name: "blk", socket: socket, more: k.properties})
	m := boot(t, c)
	m.makeFileSystem()
	m.run(fio("before")...)
	m.startWork()

	for _, tt := range []struct {
		name     string
		sabotage relay.Sabotage
		missing  func(r relay.Report) bool
	}{
		{"a backend that marks nothing is found out", relay.HideLogAll,
			func(r relay.Report) bool { return len(r.Missing) == len(r.Written) }},
		{"a backend that does not mark its rings is found out", relay.HideRingLog,
			func(r relay.Report) bool { return len(r.Missing) > 0 && len(r.Missing) < len(r.Written)/2 }},
		{"a backend that marks all is not", relay.None,
			func(r relay.Report) bool { return len(r.Missing) == 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.in(t)
			r.Sabotage(tt.sabotage)
			defer r.Sabotage(relay.None)
			m.logAWhile(r)
			report := m.report(r)
			if !tt.missing(report) {
				t.Errorf("of %d written pages %d are missing in the log: %#x",
					len(report.Written), len(report.Missing), report.Missing)
			}
			m.goOn()
		})
	}

	t.Run("migrating", func(t *testing.T) {
		m.in(t)
		blk := startBackend(t, parts.blk, "--blk-file="+content)
		m.migrate(r, withDevices(k.series, device{name: "blk", socket: blk.socket, more: k.properties}))
		m.awaitWork()
		m.endWork()
		m.run(fio("before", "--verify_only")...)
		m.checkFileSystem()
	})
}

// logAWhile logs the guest's dirty pages while it works: it starts a migration that does
// not complete, and pauses the guest. goOn cancels the migration.
func (m *machine) logAWhile(r *relay.Relay) {
	m.t.Helper()
	m.executeWith("migrate-set-parameters", map[string]any{"max-bandwidth": 1 << 20})
	m.executeWith("migrate", map[string]any{"uri": "exec:cat >/dev/null"})
	m.awaitLogging(r)
	m.awaitWork()
	m.execute("stop")
}

// goOn cancels the migration of logAWhile and lets the guest continue.
func (m *machine) goOn() {
	m.t.Helper()
	if err := m.CancelMigration(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	m.execute("cont")
	m.awaitWork()
}

func (m *machine) awaitLogging(r *relay.Relay) {
	m.t.Helper()
	for !r.Logging() {
		if m.ctx.Err() != nil {
			m.t.Fatal("QEMU does not switch logging on")
		}
		time.Sleep(time.Millisecond)
	}
}

// report returns the relay's report after the device has stopped.
func (m *machine) report(r *relay.Relay) relay.Report {
	m.t.Helper()
	report, err := r.Report()
	if err != nil {
		m.t.Fatal(err)
	}
	if len(report.Written) == 0 {
		m.t.Fatal("the backend wrote nothing")
	}
	return report
}

// migrate moves the guest to another QEMU while it works, and requires that the backend
// has marked every page that it wrote.
func (m *machine) migrate(r *relay.Relay, c vm.Config) {
	m.t.Helper()
	dst, err := vm.StartIncoming(m.ctx, c)
	if err != nil {
		m.t.Fatal(err)
	}
	src := m.VM
	m.VM = dst
	m.t.Cleanup(func() { src.Close() })
	// Slow enough that much is written meanwhile.
	if err := src.StartMigration(m.ctx, dst, 100<<20); err != nil {
		m.t.Fatal(err)
	}
	figures, err := src.WaitMigration(m.ctx, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if figures.Status != "completed" {
		m.t.Fatalf("the migration %s: %s\n%s", figures.Status, figures.ErrorDesc, src.Diagnosis())
	}
	if err := dst.Arrive(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	report := m.report(r)
	if len(report.Missing) > 0 {
		m.t.Errorf("of %d written pages these are missing in the log: %#x",
			len(report.Written), report.Missing)
	}
	m.t.Logf("the backend wrote %d pages, while %d MiB were sent in %d rounds",
		len(report.Written), figures.RAM.Transferred>>20, figures.RAM.SyncCount)
}
