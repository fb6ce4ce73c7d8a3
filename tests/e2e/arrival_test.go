// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// poolOf returns a name for a pool, and the memory backend of a guest in it.
func poolOf(t *testing.T, mib int) (pool string, backend []string) {
	t.Helper()
	dir, _ := lab.MustSharedDir(t)
	pool = filepath.Join(dir, "pool")
	return pool, []string{fmt.Sprintf(
		"memory-backend-file,id=ram,size=%dM,share=on,mem-path=%s,lease=on", mib, pool,
	)}
}

// A Linux guest under load leaves its memory in a pool, and runs at the destination at once. What
// it and its disk's backend need arrives when they need it, without the source, and what it has
// free does not. Then it migrates as ever, and into the pool again.
func TestArrivalOfALinuxGuest(t *testing.T) {
	pool, backend := poolOf(t, withDiskMiB)
	m := bootWithDisk(t, backend)
	for range rounds(1, 20) {
		figures, begun := m.arriveFrom(pool, withDiskMiB)
		m.awaitDisk()
		m.requireArrives(pool, figures, begun)
		if figures.Hints.Hot == nil || *figures.Hints.Hot == 0 {
			t.Error("it is not known what the guest wants first")
		}
		m.capability("x-ignore-shared", false)
		if figures := m.migrate(); figures.RAM.Transferred < 160<<20 {
			t.Errorf("%d bytes were sent of a guest that uses 160 MiB", figures.RAM.Transferred)
		}
		m.awaitDriver()
		m.awaitDisk()
		m.requireSound()
	}
	m.endWork()
}

// The agent may say what is free.
func TestArrivalAsTheAgentSays(t *testing.T) {
	pool, backend := poolOf(t, defaultMiB)
	m := boot(t, setup{memory: backend})
	figures, begun := m.arriveFrom(pool, defaultMiB)
	if source := figures.Hints.Source; source != vm.SourceDriver {
		t.Errorf("the hints are from %q", source)
	}
	m.requireArrives(pool, figures, begun)
}

// arriveFrom hands a guest over to a QEMU with memory of its own, which arrives slowly.
func (m *machine) arriveFrom(pool string, mib int) (figures *vm.Migration, begun vm.Load) {
	m.t.Helper()
	dst, backend := m.start(vm.StartIncoming, func(c *vm.Config) {
		c.Memory = []string{fmt.Sprintf(
			"memory-backend-memfd,id=ram,size=%dM,share=on,pool=%s", mib, pool,
		)}
	})
	handover := vm.Transfer{
		Capabilities: []string{"x-ignore-shared", "return-path"},
		Parameters:   map[string]any{"max-postcopy-bandwidth": 2 << 20},
	}
	figures, err := m.vm.MigrateBy(m.ctx, dst, handover, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if sent := figures.RAM.Transferred; sent > 4<<20 {
		m.t.Errorf("%d bytes were sent for memory that lies in a pool", sent)
	}
	requireHints(m.t, figures, "ok")
	m.moveTo(dst, backend)
	begun = m.loadOf(dst)
	if begun.Remaining == 0 {
		m.t.Error("all had arrived before anybody needed it")
	}
	return figures, begun
}

// requireArrives checks that all memory arrives, but for what the guest has free, and that the
// pool is empty then.
func (m *machine) requireArrives(pool string, figures *vm.Migration, begun vm.Load) {
	m.t.Helper()
	m.requireSound()
	m.parameter("max-postcopy-bandwidth", 0)
	end := m.awaitLoad(m.vm)
	m.t.Logf("downtime %d ms; %+v, and then %+v", figures.Downtime, begun, end)
	if end.Faults == 0 {
		m.t.Error("the guest ran, and needed no page")
	}
	// The guest uses a part of it before it stops.
	if free := figures.Hints.Skipped * memory.PageSize; end.Skipped > free || end.Skipped < free/2 {
		m.t.Errorf("%d bytes were free when the guest was asked, and %d of them did not arrive",
			free, end.Skipped)
	}
	m.awaitMigration("completed")
	var st syscall.Stat_t
	if err := syscall.Stat(pool, &st); err != nil || st.Blocks*512 > 1<<20 {
		m.t.Errorf("%d bytes of the pool are in use, %v", st.Blocks*512, err)
	}
	m.requireSound()
	m.awaitDriver()
}
