// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// However the guest's memory is laid out, the free pages of each part are skipped,
// and no others.
func TestShapesOfGuestMemory(t *testing.T) {
	for i, tc := range []struct {
		name      string
		setup     setup
		hugePages int
		zones     []string // of /proc/buddyinfo
	}{
		{
			name:  "one block on both sides of the hole below 4 GiB",
			setup: setup{options: []string{"-machine", "max-ram-below-4g=192M"}},
			zones: []string{"Node 0, zone DMA", "Node 0, zone DMA32", "Node 0, zone Normal"},
		},
		{
			name: "two nodes in two blocks, and four kinds of zones",
			setup: setup{
				memoryMiB: 384,
				memory:    []string{memfd("low", 192), memfd("high", 192)},
				options: []string{"-machine", "max-ram-below-4g=192M",
					"-numa", "node,cpus=0,memdev=low", "-numa", "node,cpus=1,memdev=high"},
				kernelLine: []string{"movablecore=96M"},
			},
			zones: []string{"Node 0, zone DMA", "Node 0, zone DMA32",
				"Node 1, zone Normal", "Node 1, zone Movable"},
		},
		{
			name:      "huge pages of 2 MiB",
			setup:     setup{memory: []string{memfd("ram", defaultMiB) + ",hugetlb=on,hugetlbsize=2M"}},
			hugePages: 2 * defaultMiB / 2,
			zones:     []string{"Node 0, zone DMA", "Node 0, zone DMA32"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sourceInTurn(t, i, func(t *testing.T, introspect bool) {
				lab.ReserveHugePages(t, tc.hugePages)
				tc.setup.introspect = introspect
				m := boot(t, tc.setup)
				m.requireZones(tc.zones)
				for range 2 {
					m.migrateAndSkipAll()
				}
			})
		})
	}
}

// hotplugMiB is the size of one memory module.
const hotplugMiB = 128

// Free pages of memory that was plugged in while the guest runs are skipped like
// any others. The same holds for memory that is plugged in on the destination.
func TestMemoryPluggedInBetweenBootAndMigration(t *testing.T) {
	bothSources(t, func(t *testing.T, introspect bool) {
		m := boot(t, setup{
			introspect: introspect,
			memoryMiB:  256,
			options:    []string{"-m", "256M,slots=2,maxmem=1G"},
			kernelLine: []string{"memhp_default_state=online"},
		})
		for i := range 2 {
			m.plugMemory(fmt.Sprintf("dimm%d", i))
			m.migrateAndSkipAll()
		}
	})
}

// TCG's dirty log finds each RAMBlock by its offset among all blocks. Nothing is
// lost if a later block is larger than the first one.
func TestSecondBlockLargerThanTheFirst(t *testing.T) {
	for _, tc := range []struct {
		name  string
		setup setup
	}{
		{"with hints", setup{}},
		{"without the device", setup{noDevice: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := tc.setup
			s.accel = vm.TCG
			s.memoryMiB = 256
			s.memory = []string{memfd("ram", 256), memfd("large", 512)}
			s.options = []string{"-m", "256M,slots=1,maxmem=2G"}
			s.devices = []string{"pc-dimm,id=dimm,memdev=large"}
			s.kernelLine = []string{"memhp_default_state=online"}
			m := boot(t, s)
			m.fillFree() // most free memory is in the large block
			for range 2 {
				figures := m.migrate()
				if figures.RAM.SyncCount < 2 {
					t.Fatalf("the dirty log was synchronized %d times only", figures.RAM.SyncCount)
				}
				m.requireSound()
				if !s.noDevice {
					requireHints(t, figures, "ok")
					m.awaitDriver()
				}
			}
		})
	}
}

// plugMemory plugs a memory module into the running guest, and waits until the
// guest uses it. Every later destination is started with the module.
func (m *machine) plugMemory(id string) {
	m.t.Helper()
	before := m.memory()
	for _, step := range []struct {
		command string
		args    map[string]any
	}{
		{"object-add", map[string]any{
			"qom-type": "memory-backend-memfd", "id": id + "ram",
			"size": hotplugMiB << 20, "share": true,
		}},
		{"device_add", map[string]any{"driver": "pc-dimm", "id": id, "memdev": id + "ram"}},
	} {
		if err := m.vm.Execute(m.ctx, step.command, step.args, nil); err != nil {
			m.t.Fatal(err)
		}
	}
	m.config.Options = append(m.config.Options, "-object", memfd(id+"ram", hotplugMiB))
	m.config.Devices = append(m.config.Devices, "pc-dimm,id="+id+",memdev="+id+"ram")
	const pages = hotplugMiB << 20 / memory.PageSize
	for m.memory().Total < before.Total+pages*9/10 { // memory fails at the end of the test's time
		time.Sleep(10 * time.Millisecond)
	}
	m.awaitDriver()
}

// migrateAndSkipAll has the guest write and free most of its free memory. Then it
// migrates, and requires that nearly all free pages are skipped.
func (m *machine) migrateAndSkipAll() {
	m.t.Helper()
	m.awaitDriver()
	m.integrity("pause") // pages that it frees later would not be in the count
	free := m.memory().Buddy
	info, err := m.vm.Fill(m.ctx, int(free*memory.PageSize>>20)*8/10)
	if err != nil {
		m.t.Fatal(err)
	}
	figures := m.migrate()
	requireHints(m.t, figures, "ok")
	if skipped := figures.Hints.Skipped; skipped*100 < info.Buddy*95 || skipped > info.Total {
		m.t.Errorf("skipped %d pages of %d that were free", skipped, info.Buddy)
	}
	m.integrity("resume")
	m.requireSound()
	m.requireZeroes()
	requireHints(m.t, m.migrate(), "ok") // and once more while its memory changes
	m.requireSound()
}

// memory asks the guest about its memory.
func (m *machine) memory() memory.Info {
	m.t.Helper()
	info, err := m.vm.Memory(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return info
}

// requireZones checks that the guest has free memory in each of the zones. If it
// had none in a zone, the test would not show that free pages there are skipped.
func (m *machine) requireZones(zones []string) {
	m.t.Helper()
	text, err := m.vm.Run(m.ctx, "/init", "show", "/proc/buddyinfo")
	if err != nil {
		m.t.Fatal(err)
	}
	free := make(map[string]bool)
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // Node 0, zone DMA 1 0 ...
		if len(f) < 5 {
			m.t.Fatalf("buddyinfo has the line %q", line)
		}
		free[strings.Join(f[:4], " ")] = strings.Trim(strings.Join(f[4:], ""), "0") != ""
	}
	for _, z := range zones {
		if !free[z] {
			m.t.Fatalf("no free memory in %s:\n%s", z, text)
		}
	}
}

// memfd returns the options of a shared memory backend of so many MiB.
func memfd(id string, mib int) string {
	return fmt.Sprintf("memory-backend-memfd,id=%s,size=%dM,share=on", id, mib)
}
