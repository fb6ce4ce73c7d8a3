// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// What a guest has read of a disk is clean cache. With the policy last QEMU is told of it
// as cold, and with no other: precopy gains nothing by an order otherwise. The policy is
// switched while the guest runs.
func TestColdCacheIsSentLastByPolicy(t *testing.T) {
	const size = 16 << 20
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	m := boot(t, setup{
		introspect: true, modules: []string{"virtio_blk"},
		options: []string{"-drive", "file=" + disk + ",if=none,id=d,format=raw,readonly=on"},
		devices: []string{"virtio-blk-pci,drive=d"},
	})
	if err := m.vm.Cache(m.ctx, "/dev/vda"); err != nil {
		t.Fatal(err)
	}
	for _, policy := range []string{"send", "last", "send"} {
		if err := m.backend.AwaitKernel(m.ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := m.backend.Control.SetCache(m.ctx, policy); err != nil {
			t.Fatal(err)
		}
		f := m.migrate()
		requireHints(t, f, "ok")
		m.requireSound()
		told := f.Hints.Hot != nil && f.Hints.Cold != nil
		if told != (policy == "last") {
			t.Fatalf("%s: QEMU was told an order: %v", policy, told)
		}
		if !told {
			continue
		}
		if cold := *f.Hints.Cold; *f.Hints.Hot == 0 || cold < size*3/4 || cold > 2*size {
			t.Errorf("QEMU was told that %d bytes are hot and %d cold", *f.Hints.Hot, cold)
		}
	}
}
