// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser"
)

// A vhost-user device of whatever kind sees no memory in a VM whose RAM is not
// shared, and has nothing to log. That is no reason for QEMU to end.
func TestMigrationWithABackendThatSeesNoMemory(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "fs.sock")
	serve(t, socket, &vhostuser.Device{
		NumQueues: 2,
		Kick:      func(*vhostuser.Queue) {},
	})
	m := boot(t, setup{
		noDevice: true,
		modules:  []string{"virtiofs"},
		memory:   []string{"memory-backend-ram,id=ram,size=320M"},
		options:  []string{"-chardev", "socket,id=fs,path=" + socket},
		devices:  []string{"vhost-user-fs-pci,chardev=fs,tag=none"},
	})
	// Whether it completes is QEMU's affair: the backend refuses rings that it does
	// not see, and so QEMU cannot have them logged.
	file := filepath.Join(t.TempDir(), "nowhere")
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
