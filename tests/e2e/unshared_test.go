// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
)

// A vhost-user device of whatever kind sees no memory in a VM whose RAM is not
// shared, and has nothing to log. That is no reason for QEMU to end.
func TestMigrationWithABackendThatSeesNoMemory(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "fs.sock")
	started := make(chan struct{}, 100)
	serve(t, socket, &vhostuser.Device{
		NumQueues:    2,
		Kick:         func(*vhostuser.Queue) {},
		QueueStarted: func(*vhostuser.Queue) { started <- struct{}{} },
	})
	m := boot(t, setup{
		noDevice: true,
		modules:  []string{"virtiofs"},
		memory:   []string{"memory-backend-ram,id=ram,size=320M"},
		options:  []string{"-chardev", "socket,id=fs,path=" + socket},
		devices:  []string{"vhost-user-fs-pci,chardev=fs,tag=none"},
	})
	// TODO
	time.Sleep(time.Second)
	file := filepath.Join(t.TempDir(), "nowhere")
	if err := m.vm.Execute(m.ctx, "migrate", map[string]any{"uri": "file:" + file}, nil); err != nil {
		t.Fatal(err)
	}
	figures, err := m.vm.WaitMigration(m.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v %s %d", figures, m.vm.Messages(), len(started))
}
