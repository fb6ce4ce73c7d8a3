// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// refusal is a part of QEMU's error if no RAM is shared. It names the setting to
// change.
const refusal = "it needs a backend with share=on"

// QEMU refuses the device if no RAM is shared, at its start and when the device is
// plugged in. Shared memory that is not the guest's RAM, such as flash, does not
// count.
func TestRAMThatIsNotShared(t *testing.T) {
	for _, tc := range []struct {
		name    string
		memory  []string
		options []string
	}{
		{name: "no backend at all", memory: []string{}},
		{name: "memory-backend-ram", memory: []string{"memory-backend-ram,id=ram,size=64M"}},
		{
			name:   "a memfd with share=off",
			memory: []string{"memory-backend-memfd,id=ram,size=64M,share=off"},
		},
		{
			name:    "shared memory of QEMU's own",
			memory:  []string{"memory-backend-ram,id=ram,size=64M,share=off"},
			options: []string{"-machine", "aux-ram-share=on"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := startFBPPD(t)
			c := config(b.Socket)
			c.Memory, c.Options = tc.memory, tc.options
			v, err := vm.Start(t.Context(), c)
			if err == nil {
				v.Close()
				t.Fatal("QEMU starts with the device though no RAM is shared")
			}
			if !strings.Contains(err.Error(), refusal) {
				t.Fatalf("QEMU said %v, want %q", err, refusal)
			}
			c.Backend, c.Devices = "", []string{"pcie-root-port,id=port0,addr=0x11"}
			m := start(t, c)
			m.plugChardev(b.Socket)
			if err := m.plugDevice(); err == nil || !strings.Contains(err.Error(), refusal) {
				t.Fatalf("plugged in, the device says %v, want %q", err, refusal)
			}
			m.requireRuns()
		})
	}
}

// plugChardev adds the chardev that plugDevice needs.
func (m *machine) plugChardev(socket string) {
	m.t.Helper()
	m.execute("chardev-add", map[string]any{"id": "fbpp", "backend": map[string]any{
		"type": "socket", "data": map[string]any{
			"server": false, "reconnect-ms": 200,
			"addr": map[string]any{"type": "unix", "data": map[string]any{"path": socket}},
		},
	}})
}

// plugDevice plugs the device in.
func (m *machine) plugDevice() error {
	return m.Execute(m.ctx, "device_add", map[string]any{
		"driver": "vhost-user-fbpp-pci", "id": "fbpp0", "chardev": "fbpp", "bus": "port0",
	}, nil)
}

// A VM may have a module of memory that is not shared. A driver with queues in memory
// that is not shared, or where there is no memory, is not served, and QEMU says why.
// Migrations complete without hints.
func TestQueuesInMemoryThatIsNotShared(t *testing.T) {
	const module = 1 << 32 // the module's address
	for _, tc := range []struct {
		name   string
		memory string
		base   uint64
	}{
		{"memory-backend-ram", "memory-backend-ram,id=private,size=64M", module},
		{"a memfd with share=off", "memory-backend-memfd,id=private,size=64M,share=off", module},
		{"queues that end where memory ends", "memory-backend-ram,id=private,size=64M", 64<<20 - 0x4800},
		{"queues where no memory is", "memory-backend-ram,id=private,size=64M", 0xd0000000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			source, destination := startFBPPD(t), startFBPPD(t)
			c := config(source.Socket)
			c.Options = []string{"-m", "64M,slots=2,maxmem=1G", "-object", tc.memory}
			c.Devices = []string{"pc-dimm,id=dimm,memdev=private"}
			m := start(t, c)
			m.awaitConnected(source)
			m.startDriver(tc.base)
			c.Backend = destination.Socket
			dst := startIncoming(t, c)
			figures := m.migrate(dst, vm.Transfer{})
			if figures.HintStatus() != "not-shared" {
				t.Errorf("the hints ended with %q, want not-shared", figures.HintStatus())
			}
			m.awaitSaid("migration: completed after ", 1)
			m.requireSaid(
				"warning: vhost-user-fbpp fbpp0: the guest's driver has its queues in memory that",
				"no free page hints: not-shared",
				"migration: completed after ",
			)
			for _, b := range []*vm.Backend{source, destination} {
				if mapped(t, b) != 0 {
					t.Error("a backend has memory for queues that it cannot have")
				}
			}
			// Only the place of the queues matters: with others the driver is served.
			dst.startDriver(low)
			dst.awaitStarted(destination)
			c.Backend = source.Socket
			m.Close()
			back := startIncoming(t, c)
			if figures := dst.migrate(back, vm.Transfer{}); figures.HintStatus() != "no-driver" {
				t.Errorf("the hints ended with %q, want no-driver: nobody said hello", figures.HintStatus())
			}
		})
	}
}

// awaitConnected waits until a backend serves QEMU.
func (m *machine) awaitConnected(b *vm.Backend) {
	m.t.Helper()
	m.await("fbppd is connected", func() bool {
		s, err := b.Control.Status(m.ctx)
		return err == nil && s.Connected
	})
}
