// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser"
)

// If a VM's RAM is not shared, a vhost-user backend sees no memory and QEMU has no
// dirty log for it. A migration must not make QEMU exit, with any kind of device.
func TestMigrationWithABackendThatSeesNoMemory(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "fs.sock")
	serve(t, socket, &vhostuser.Device{
		NumQueues: 2,
		Kick:      func(*vhostuser.Queue) {},
	})
	m := boot(t, setup{
		noDevice: true,
		modules:  []string{"virtiofs"},
		memory:   []string{fmt.Sprintf("memory-backend-ram,id=ram,size=%dM", defaultMiB)},
		options:  []string{"-chardev", "socket,id=fs,path=" + socket},
		devices:  []string{"vhost-user-fs-pci,chardev=fs,tag=none"},
	})
	// The migration may fail. The backend refuses rings in memory that it does not
	// see, so QEMU cannot switch their logging on.
	file := filepath.Join(t.TempDir(), "nowhere")
	m.parameter("max-bandwidth", 1<<40) // or a guest that writes may never stop
	err := m.vm.Execute(m.ctx, "migrate", map[string]any{"uri": "file:" + file}, nil)
	if err != nil && !strings.Contains(err.Error(), "Failed to start logging") {
		t.Fatal(err)
	}
	figures, err := m.vm.WaitMigration(m.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if figures.Status == "completed" {
		m.execute("cont")
	}
	m.requireSound()
}
