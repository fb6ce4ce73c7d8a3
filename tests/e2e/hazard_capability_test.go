// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// What else QEMU can do to a migration goes together with hints.
func TestHintsWithOtherCapabilities(t *testing.T) {
	m := boot(t, setup{})
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "migration")
	for _, tc := range []struct {
		name     string
		transfer vm.Transfer
	}{
		{"auto-converge, which has to slow the guest down", vm.Transfer{
			Bandwidth:    64 << 20,
			Capabilities: []string{"auto-converge"},
			Parameters:   map[string]any{"cpu-throttle-initial": 70, "cpu-throttle-increment": 25},
		}},
		{"xbzrle, for what is sent again", vm.Transfer{Bandwidth: 256 << 20, Capabilities: []string{"xbzrle"}}},
		{"four channels", vm.Transfer{Capabilities: []string{"multifd"}, Parameters: map[string]any{"multifd-channels": 4}}},
		{"channels that compress", vm.Transfer{
			Capabilities: []string{"multifd", "auto-converge"},
			Parameters:   map[string]any{"multifd-channels": 2, "multifd-compression": "zlib"},
		}},
		{"zero pages found by the main thread", vm.Transfer{
			Capabilities: []string{"multifd"},
			Parameters:   map[string]any{"multifd-compression": "none", "zero-page-detection": "legacy"},
		}},
		{"a file with a place for each page", vm.Transfer{Capabilities: []string{"mapped-ram"}, File: file}},
		{"such a file by several channels", vm.Transfer{Capabilities: []string{"mapped-ram", "multifd"}, File: file + "s"}},
		{"events, and a return path", vm.Transfer{Capabilities: []string{"events", "return-path"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer m.in(t)()
			figures := m.migrateBy(tc.transfer)
			requireHints(t, figures, "ok")
			t.Logf("sent %d bytes in %d ms, %d passes", figures.RAM.Transferred, figures.TotalTime, figures.RAM.SyncCount)
			for _, c := range tc.transfer.Capabilities {
				m.capability(c, false) // the next one chooses its own
			}
			m.requireSound()
			m.requireZeroes()
			m.awaitDriver()
		})
	}
}

// Where hints cannot be had the migration is an ordinary one.
func TestCapabilitiesThatExcludeHints(t *testing.T) {
	t.Run("x-ignore-shared", func(t *testing.T) {
		// Both ends use one file, of which nothing is sent.
		ram := filepath.Join(t.TempDir(), "ram")
		m := boot(t, setup{memory: []string{fmt.Sprintf("memory-backend-file,id=ram,size=320M,share=on,mem-path=%s", ram)}})
		for range 2 {
			figures := m.migrateBy(vm.Transfer{Capabilities: []string{"x-ignore-shared"}})
			requireHints(t, figures, "incompatible")
			if figures.RAM.Transferred > 64<<20 {
				t.Errorf("%d bytes were sent of memory that is shared", figures.RAM.Transferred)
			}
			m.requireSound()
		}
	})
	t.Run("postcopy-ram", func(t *testing.T) {
		m := boot(t, setup{})
		// QEMU asks the destination's backends whether they can wait for pages,
		// and fbppd cannot: such a migration fails before it has begun.
		dst, backend := m.destination()
		_, err := m.vm.MigrateBy(m.ctx, dst, vm.Transfer{Capabilities: []string{"postcopy-ram"}}, nil)
		if err == nil || !strings.Contains(dst.Messages(), "vhost-user backend not capable of postcopy") {
			t.Fatalf("it ended with %v; the destination said %s", err, dst.Messages())
		}
		figures, err := m.vm.QueryMigrate(m.ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", figures.Hints)
		backend.Close()
		m.requireSound()
		m.capability("postcopy-ram", false)
		requireHints(t, m.migrate(), "ok")
		m.requireSound()
	})
	t.Run("background-snapshot", func(t *testing.T) {
		m := boot(t, setup{})
		dst, backend := m.destination()
		file := filepath.Join(t.TempDir(), "snapshot")
		figures, err := m.vm.MigrateBy(m.ctx, dst, vm.Transfer{Capabilities: []string{"background-snapshot"}, File: file}, nil)
		if err != nil {
			t.Fatal(err)
		}
		requireHints(t, figures, "incompatible")
		m.requireSound() // the guest has gone on
		m.moveTo(dst, backend)
		m.requireSound() // and this is how it was
	})
}

// migrateBy moves the guest to a new QEMU in another way than usual.
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
