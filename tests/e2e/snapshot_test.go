// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// A Linux guest goes on from a snapshot at once, while its memory is still in the file.
// What was free when the file was written is not in it. All memory arrives, the driver
// is there, and the guest can migrate again.
func TestFastSnapshotLoadOfALinuxGuest(t *testing.T) {
	m := boot(t, setup{})
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	file, figures := m.snapshot()

	whole, backend, first := m.load(file, "mapped-ram")
	whole.Close()
	backend.Close()
	lazy, backend, second := m.load(file, "mapped-ram", "postcopy-ram")
	begun := m.loadOf(lazy)
	m.moveTo(lazy, backend)
	m.requireSound()
	end := m.awaitLoad(lazy)
	t.Logf("runs after %v, and %v if all is loaded before: %.1f times as fast; %+v, and then %+v",
		second, first, float64(first)/float64(second), begun, end)
	// Some of what was free has been written since, and so is in the file.
	if limit := figures.RAM.Total - figures.Hints.Skipped*memory.PageSize/2; end.Total > limit {
		t.Errorf("%d bytes were loaded, and without half of what was free there are %d",
			end.Total, limit)
	}
	if end.Faults == 0 {
		t.Error("the guest ran, and needed no page")
	}
	m.awaitDriver()
	m.awaitMigration("completed")
	m.capability("postcopy-ram", false)
	m.capability("mapped-ram", false)
	m.migrate()
	m.requireSound()
}

// The disk of another backend goes on, too, while the guest's memory is still in the file: the
// backend waits for what it needs, as in postcopy.
func TestFastSnapshotLoadWithADisk(t *testing.T) {
	m := bootWithDisk(t, nil)
	file, _ := m.snapshot()
	lazy, backend, _ := m.load(file, "mapped-ram", "postcopy-ram")
	m.moveTo(lazy, backend)
	m.awaitDisk()
	m.requireSound()
	if end := m.awaitLoad(lazy); end.Faults == 0 {
		t.Errorf("nobody needed a page: %+v", end)
	}
	m.awaitDisk()
	m.requireSound()
	m.endWork()
}

// snapshot writes the guest into a file without what is free, and returns its name and the figures.
func (m *machine) snapshot() (string, *vm.Migration) {
	m.t.Helper()
	file, figures := m.writeSnapshot()
	requireHints(m.t, figures, "ok")
	return file, figures
}

// writeSnapshot writes the guest into a file, with or without hints.
func (m *machine) writeSnapshot() (string, *vm.Migration) {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "snapshot")
	m.capability("mapped-ram", true)
	m.parameter("max-bandwidth", 1<<40) // or a guest that writes may never stop
	err := m.vm.Execute(m.ctx, "migrate", map[string]any{"uri": "file:" + file}, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	figures, err := m.vm.WaitMigration(m.ctx, nil)
	if err != nil || figures.Status != "completed" {
		m.t.Fatalf("the snapshot is %+v, %v", figures, err)
	}
	return file, figures
}

// awaitLoad waits until all of a VM's memory is there, and returns the figures.
func (m *machine) awaitLoad(v *vm.VM) vm.Load {
	m.t.Helper()
	load := m.loadOf(v)
	for load.Remaining > 0 {
		time.Sleep(10 * time.Millisecond)
		load = m.loadOf(v)
	}
	return load
}

// load starts a QEMU that loads the file, and tells how long it took until the guest ran.
func (m *machine) load(file string, capabilities ...string) (*vm.VM, *vm.Backend, time.Duration) {
	m.t.Helper()
	v, backend := m.destination()
	for _, c := range capabilities {
		if err := v.Execute(m.ctx, "migrate-set-capabilities", capability(c, true), nil); err != nil {
			m.t.Fatal(err)
		}
	}
	before := time.Now()
	err := v.Execute(m.ctx, "migrate-incoming", map[string]any{"uri": "file:" + file}, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := v.Arrive(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	return v, backend, time.Since(before)
}

// loadOf returns the figures of a VM's load.
func (m *machine) loadOf(v *vm.VM) vm.Load {
	m.t.Helper()
	figures, err := v.QueryMigrate(m.ctx)
	if err != nil || figures.Load == nil {
		m.t.Fatalf("the load is %+v, %v\n%s", figures, err, v.Diagnosis())
	}
	return *figures.Load
}
