// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// byHandover migrates a VM whose memory stays in the pool.
func byHandover() vm.Transfer {
	return vm.Transfer{Capabilities: []string{"x-ignore-shared", "return-path", "events"}}
}

// handedOver is more than the stream of a hand-over has: the state of devices, and ROMs.
const handedOver = 2 << 20

// Only the state of devices moves. The VM that has handed its memory over does nothing
// to it any more, and the next one has the right to it.
func TestHandover(t *testing.T) {
	pool := newPool(t)
	m := startOnPool(t, pool, "first")
	want := m.memory()
	if got := m.holder(); got != "held by this VM" {
		t.Errorf("the lease is %q", got)
	}
	dst := startIncoming(t, onPool(pool, "second", "on"))
	if got := dst.holder(); got != "held by "+m.identity() {
		t.Errorf("the lease is %q", got)
	}
	figures := m.migrate(dst, byHandover())
	if figures.RAM.Transferred > handedOver {
		t.Errorf("%d bytes were sent for memory that stays where it is", figures.RAM.Transferred)
	}
	dst.requireRuns()
	dst.requireMemory(want)

	held := "held by " + dst.identity()
	if got := m.holder(); got != held {
		t.Errorf("the lease is %q, want %q", got, held)
	}
	requireRefused(t, m.cont(), "does not have the lease", pool, held)
	m.execute("set-action", map[string]any{"reboot": "reset"}) // the tests run with -no-reboot
	m.execute("system_reset", nil)                             // would load ROMs into memory
	m.awaitSaid("no reset: this VM does not have the lease", 1)
	dst.requireMemory(want)

	// And on: the second one may hand it over as the first one did, and gives it up.
	m.quit()
	third := startIncoming(t, onPool(pool, "third", "on"))
	dst.migrate(third, byHandover())
	third.requireMemory(want)
	dst.quit()
	requireNoStart(t, onPool(pool, "fourth", "on"), pool, "held by "+third.identity())
	third.quit()
	last := start(t, onPool(pool, "last", "on"))
	last.requireRuns()
}

// A VM does not run on a pool that another one has. Whoever tries says who that is.
func TestTwoVMsNeverRunOnOnePool(t *testing.T) {
	pool := newPool(t)
	m := startOnPool(t, pool, "first")
	want := m.memory()
	held := "held by " + m.identity()

	for _, lease := range []string{"on", "force"} { // force is not for who lives
		requireNoStart(t, onPool(pool, "second", lease), pool, held)
	}
	requireNoStart(t, onPool(pool, "second", "off"), pool, "lease=on")
	requireNoStart(t, sized(onPool(pool, "second", "on"), 128, pool, "on"), pool)

	// Nor does one whose memory a migration would overwrite.
	dst := startIncoming(t, onPool(pool, "second", "on"))
	file := filepath.Join(t.TempDir(), "snapshot")
	m.snapshot(file, "-x-ignore-shared")
	requireStopped(t, m)
	dst.execute("migrate-set-capabilities", map[string]any{"capabilities": []map[string]any{
		{"capability": "mapped-ram", "state": true},
	}})
	dst.execute("migrate-incoming", map[string]any{"uri": "file:" + file, "exit-on-error": false})
	if m := dst.awaitFailed(); !containsAll(m.ErrorDesc, []string{pool, held}) {
		t.Errorf("the load failed by %q", m.ErrorDesc)
	}
	m.requireMemory(want)
	if err := m.cont(); err != nil {
		t.Error(err)
	}
}

// What a guest writes is no lease: it cannot keep its own file from being used again.
func TestAGuestMakesNoLease(t *testing.T) {
	file := newPool(t)
	m := start(t, onPool(file, "first", "off"))
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("RAMLEASE"), all-pageSize); err != nil {
		t.Fatal(err)
	}
	m.quit()
	again := start(t, onPool(file, "again", "off"))
	again.requireRuns()
}

// A destination that maps another file, or does not look, is refused while the source
// runs on. Then the right one has its turn.
func TestHandoverToAnotherFile(t *testing.T) {
	pool := newPool(t)
	m := startOnPool(t, pool, "first")
	want := m.memory()
	dup := newPool(t)
	if err := copyFile(dup, pool); err != nil {
		t.Fatal(err)
	}
	plain := onPool(newPool(t), "second", "off")
	for _, tc := range []struct {
		name string
		c    vm.Config
		said string
	}{
		{"another file", onPool(newPool(t), "second", "on"), "does not have its RAM 'ram' in this"},
		{"a copy of the file", onPool(dup, "second", "on"), "does not have its RAM 'ram' in this"},
		{"without a lease", plain, "ram-lease"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dst := startIncoming(t, tc.c)
			figures, err := m.MigrateBy(m.ctx, dst.VM, byHandover(), nil)
			if figures == nil {
				t.Fatal(err)
			}
			refused := "the destination does not take this VM's RAM"
			if figures.Status != "failed" || !containsAll(figures.ErrorDesc, []string{refused}) {
				t.Errorf("the migration %s by %q", figures.Status, figures.ErrorDesc)
			}
			if err := dst.Wait(m.ctx); err == nil {
				t.Error("the destination has ended as if all were well")
			}
			if dst.countSaid(tc.said) == 0 {
				t.Errorf("the destination said %q", dst.Messages())
			}
			m.requireNeverStopped()
		})
	}
	m.capabilities("-return-path")
	requireRefused(t, m.Execute(m.ctx, "migrate", map[string]any{"uri": "unix:/nobody"}, nil),
		"return-path")
	dst := startIncoming(t, onPool(pool, "second", "on"))
	m.migrate(dst, byHandover())
	dst.requireMemory(want)
}

// Hints and a hybrid migration have nothing to do, and say so.
func TestHandoverHasNothingToSend(t *testing.T) {
	b := startFBPPD(t)
	pool := newPool(t)
	c := onPool(pool, "first", "on")
	c.Backend = b.Socket
	c.Device["hybrid"] = "on"
	m := start(t, c)
	m.awaitConnected(b)
	c = onPool(pool, "second", "on")
	c.Backend = b.Socket + ".nobody"
	dst := startIncoming(t, c)
	figures := m.migrate(dst, byHandover())
	if figures.HintStatus() != "nothing-to-send" || figures.Hints.Hybrid != "nothing-to-send" {
		t.Errorf("the hints say %+v", figures.Hints)
	}
	m.await("fbppd has heard of it", func() bool {
		s, err := b.Control.Status(m.ctx)
		return err == nil && s.Migration != nil &&
			s.Migration.Hints == protocol.HintNothingToSend.String()
	})
}

// requireNeverStopped checks that a VM runs, and has never stood still.
func (m *machine) requireNeverStopped() {
	m.t.Helper()
	m.requireRuns()
	if stops := m.Events("STOP"); len(stops) > 0 {
		m.t.Errorf("the VM has stopped: %s", stops)
	}
}

func requireStopped(t testing.TB, m *machine) {
	t.Helper()
	if status, err := m.Status(m.ctx); err != nil || status == "running" {
		t.Fatalf("QEMU is %q, %v", status, err)
	}
}

// awaitFailed waits until the migration, or the load, has failed.
func (m *machine) awaitFailed() *vm.Migration {
	m.t.Helper()
	var figures *vm.Migration
	m.await("it has failed", func() bool {
		var err error
		if figures, err = m.QueryMigrate(m.ctx); err != nil {
			m.t.Fatal(err)
		}
		return figures.Status == "failed"
	})
	return figures
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	_, err = io.Copy(dst, src)
	return err
}
