// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// A Linux guest under load leaves its memory in a pool, and runs at the destination at once. What
// it and its disk's backend need arrives when they need it, without the source. Then it migrates
// as ever, and into the pool again.
func TestArrivalOfALinuxGuest(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "fbpp-pool-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	pool := filepath.Join(dir, "pool")
	m := bootWithDisk(t, []string{fmt.Sprintf(
		"memory-backend-file,id=ram,size=%dM,share=on,mem-path=%s,lease=on", withDiskMiB, pool,
	)})
	for range rounds(1, 20) {
		m.arriveFrom(pool)
		m.capability("x-ignore-shared", false)
		if figures := m.migrate(); figures.RAM.Transferred < 160<<20 {
			t.Errorf("%d bytes were sent of a guest that uses 160 MiB", figures.RAM.Transferred)
		}
		m.awaitDisk()
		m.requireSound()
	}
	m.endWork()
}

// arriveFrom hands a guest with a disk over to a QEMU with memory of its own, and waits until all
// of it has arrived there.
func (m *machine) arriveFrom(pool string) {
	m.t.Helper()
	dst, backend := m.start(vm.StartIncoming, func(c *vm.Config) {
		c.Memory = []string{fmt.Sprintf(
			"memory-backend-memfd,id=ram,size=%dM,share=on,pool=%s", withDiskMiB, pool,
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
	m.moveTo(dst, backend)
	m.awaitDisk()
	begun := m.loadOf(dst)
	if begun.Remaining == 0 {
		m.t.Error("all had arrived before anybody needed it")
	}
	m.requireSound()
	m.parameter("max-postcopy-bandwidth", 0)
	end := m.awaitLoad(dst)
	m.t.Logf("downtime %d ms; %+v, and then %+v", figures.Downtime, begun, end)
	if end.Faults == 0 {
		m.t.Error("the guest ran, and needed no page")
	}
	requireHints(m.t, figures, "ok")
	if free := figures.Hints.Skipped * memory.PageSize; end.Skipped > free || end.Skipped < free*9/10 {
		m.t.Errorf("%d bytes were free when the guest was asked, and %d of them did not arrive",
			free, end.Skipped)
	}
	if figures.Hints.Hot == nil || *figures.Hints.Hot == 0 {
		m.t.Error("it is not known what the guest wants first")
	}
	m.awaitMigration("completed")
	var st syscall.Stat_t
	if err := syscall.Stat(pool, &st); err != nil || st.Blocks*512 > 1<<20 {
		m.t.Errorf("%d bytes of the pool are in use, %v", st.Blocks*512, err)
	}
	m.awaitDisk()
	m.awaitDriver()
}
