// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// Hints work together with QEMU's other migration capabilities.
func TestHintsWithOtherCapabilities(t *testing.T) {
	m := boot(t, setup{})
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "migration")
	for _, tc := range []struct {
		name     string
		transfer vm.Transfer
		slow     bool // slower than the guest writes
	}{
		{"auto-converge, which has to slow the guest down", vm.Transfer{
			Bandwidth:    64 << 20,
			Capabilities: []string{"auto-converge"},
			Parameters:   map[string]any{"cpu-throttle-initial": 70, "cpu-throttle-increment": 25},
		}, false},
		{"xbzrle, for what is sent again", vm.Transfer{
			Bandwidth: 256 << 20, Capabilities: []string{"xbzrle"},
		}, false},
		{"four channels", vm.Transfer{
			Capabilities: []string{"multifd"},
			Parameters:   map[string]any{"multifd-channels": 4},
		}, false},
		{"channels that compress", vm.Transfer{
			Capabilities: []string{"multifd"},
			Parameters:   map[string]any{"multifd-channels": 2, "multifd-compression": "zlib"},
		}, true},
		{"zero pages found by the main thread", vm.Transfer{
			Capabilities: []string{"multifd"},
			Parameters:   map[string]any{"multifd-compression": "none", "zero-page-detection": "legacy"},
		}, false},
		{"a file with a place for each page", vm.Transfer{
			Capabilities: []string{"mapped-ram"}, File: file,
		}, false},
		{"such a file by several channels", vm.Transfer{
			Capabilities: []string{"mapped-ram", "multifd"}, File: file + "s",
		}, false},
		{"postcopy-ram, without the switch", vm.Transfer{
			Capabilities: []string{"postcopy-ram"},
		}, false},
		{"events, and a return path", vm.Transfer{
			Capabilities: []string{"events", "return-path"},
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer m.in(t)()
			if tc.slow {
				m.integrity("pause")
			}
			figures := m.migrateBy(tc.transfer)
			requireHints(t, figures, "ok")
			if tc.slow {
				m.integrity("resume")
			}
			t.Logf("sent %d bytes in %d ms, %d passes",
				figures.RAM.Transferred, figures.TotalTime, figures.RAM.SyncCount)
			for _, c := range tc.transfer.Capabilities {
				m.capability(c, false) // the next one chooses its own
			}
			m.requireSound()
			m.requireZeroes()
			m.awaitDriver()
		})
	}
	// The old content of the file does not show through in the guest.
	t.Run("a file that was used before as memory", func(t *testing.T) {
		defer m.in(t)()
		requireHints(t, m.migrateTo(m.usedDestination()), "ok")
		m.requireSound()
		m.requireZeroes()
	})
}

// With a capability that rules hints out, the migration completes without them.
func TestCapabilitiesThatExcludeHints(t *testing.T) {
	t.Run("x-ignore-shared", func(t *testing.T) {
		// Both ends use one file as the guest's RAM, so QEMU sends none of it.
		ram := filepath.Join(t.TempDir(), "ram")
		m := boot(t, setup{memory: []string{
			fmt.Sprintf("memory-backend-file,id=ram,size=%dM,share=on,mem-path=%s", defaultMiB, ram),
		}})
		for range 2 {
			figures := m.migrateBy(vm.Transfer{Capabilities: []string{"x-ignore-shared"}})
			requireHints(t, figures, "nothing-to-send")
			if figures.RAM.Transferred > 64<<20 {
				t.Errorf("%d bytes were sent of memory that is shared", figures.RAM.Transferred)
			}
			m.requireSound()
		}
	})
	// A background snapshot tracks the writes of QEMU, but not those of the
	// backend. With a running driver, the rings in the snapshot could be newer than
	// the device's state (docs/reliability.md). So no agent runs here.
	m := boot(t, setup{noAgent: true})
	t.Run("background-snapshot", func(t *testing.T) {
		defer m.in(t)()
		dst, backend := m.destination()
		file := filepath.Join(t.TempDir(), "snapshot")
		snapshot := vm.Transfer{Capabilities: []string{"background-snapshot"}, File: file}
		figures, err := m.vm.MigrateBy(m.ctx, dst, snapshot, nil)
		if err != nil {
			t.Fatal(err)
		}
		requireHints(t, figures, "incompatible")
		m.requireSound() // the guest has gone on
		m.moveTo(dst, backend)
		m.requireSound() // the guest of the snapshot
		m.capability("background-snapshot", false)
	})
}

// migrateBy moves the guest to a new QEMU, with the capabilities, parameters and
// file of a transfer.
func (m *machine) migrateBy(by vm.Transfer) *vm.Migration {
	m.t.Helper()
	dst, backend := m.destination()
	figures, err := m.vm.MigrateBy(m.ctx, dst, by, nil)
	if err != nil {
		m.t.Fatalf("with %q, %v: %v", by.Capabilities, slices.Collect(maps.Keys(by.Parameters)), err)
	}
	m.moveTo(dst, backend)
	return figures
}
