// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// stockQEMU is that of the host's Debian, and stockMachine a machine that Debian 12's knows.
const (
	stockQEMU    = "/usr/bin/qemu-system-x86_64"
	stockMachine = "pc-q35-7.2"
)

// hotplugPort is the PCIe root port that the device is plugged into.
const hotplugPort = "port0"

// The device is plugged into a running VM, which then migrates with hints. The
// device is unplugged, and the VM migrates without it, to a QEMU without the series. From
// there it comes back, the device is plugged in again, and serves the next migration.
func TestDeviceIsPluggedInAndUnplugged(t *testing.T) {
	bothSources(t, func(t *testing.T, introspect bool) {
		source := "guest"
		if introspect {
			source = "introspect"
		}
		m := boot(t, setup{
			noDevice: true, backendArgs: []string{"--source=" + source},
			devices: []string{"pcie-root-port,chassis=1,id=" + hotplugPort},
			options: []string{"-machine", stockMachine},
			eachSide: func(c *vm.Config) {
				// The same in each version. Debian 12's QEMU gets cmpxchg16b wrong.
				c.CPU = "qemu64,-cx16"
			},
		})
		m.setup.introspect = introspect
		if !introspect {
			m.requireAgentEndsWithoutDevice()
		}
		m.plug()
		if !introspect {
			m.startAgent() // systemd starts it every 30 s
		}
		m.awaitDriver()
		requireHints(t, m.migrate(), "ok")
		m.requireSound()

		m.unplug()
		present := m.config.QEMU
		for _, qemu := range []string{stockQEMU, present} {
			m.config.QEMU = qemu
			// Under TCG the stock QEMU loses pages that are written while it sends them. The series
			// mends that (patch 0001).
			paused := qemu == present && m.config.Accel == vm.TCG
			if paused {
				m.execute("stop")
			}
			if figures := m.migrate(); figures.Hints != nil {
				t.Errorf("hints without the device, to %s: %+v", qemu, figures.Hints)
			}
			if paused {
				m.execute("cont")
			}
			m.requireSound()
		}

		m.plug()
		m.awaitDriver() // the agent has waited for it
		requireHints(t, m.migrate(), "ok")
		m.requireSound()
	})
}

// requireAgentEndsWithoutDevice checks that an agent which has never seen the
// device ends, and says why.
func (m *machine) requireAgentEndsWithoutDevice() {
	m.t.Helper()
	said, err := m.vm.Run(m.ctx, lab.AgentPath)
	const why = "find the virtio-fbpp device"
	if err == nil || !strings.Contains(said+err.Error(), why) {
		m.t.Fatalf("the agent said %q, %v; want %q", said, err, why)
	}
}

// plug plugs the device in, with an fbppd of its own. The next destinations are
// started with the device.
func (m *machine) plug() {
	m.t.Helper()
	var err error
	if m.backend, err = vm.StartBackend(m.ctx, parts.FBPPD, m.setup.backendArgs...); err != nil {
		m.t.Fatal(err)
	}
	backend := m.backend
	m.closers = append(m.closers, func() { backend.Close() })
	address := map[string]any{"type": "unix", "data": map[string]any{"path": backend.Socket}}
	socket := map[string]any{"server": false, "reconnect-ms": 200, "addr": address}
	err = errors.Join(
		m.vm.Execute(m.ctx, "chardev-add", map[string]any{
			"id": "fbpp", "backend": map[string]any{"type": "socket", "data": socket},
		}, nil),
		m.vm.Execute(m.ctx, "device_add", map[string]any{
			"driver": "vhost-user-fbpp-pci", "id": "fbpp0", "bus": hotplugPort,
			"chardev": "fbpp", "hint-timeout": 20000,
		}, nil))
	if err != nil {
		m.t.Fatal(err)
	}
	m.setup.noDevice = false
	m.config.Port, m.config.Devices = hotplugPort, nil
}

// unplug asks the guest to release the device, and waits until QEMU has removed
// it. The next destinations are started without the device.
func (m *machine) unplug() {
	m.t.Helper()
	device := map[string]any{"id": "fbpp0"}
	if err := m.vm.Execute(m.ctx, "device_del", device, nil); err != nil {
		m.t.Fatal(err)
	}
	for m.hasDevice() { // hasDevice fails at the end of the test's time
		time.Sleep(10 * time.Millisecond)
	}
	// The device still uses its chardev for a moment: QEMU finalizes the device
	// after an RCU grace period.
	chardev := map[string]any{"id": "fbpp"}
	for {
		err := m.vm.Execute(m.ctx, "chardev-remove", chardev, nil)
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "is busy") {
			m.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.setup.noDevice = true
	m.config.Port, m.config.Devices = "", m.setup.devices
}

// hasDevice tells whether QEMU has the device.
func (m *machine) hasDevice() bool {
	m.t.Helper()
	var devices []struct{ Name string }
	path := map[string]any{"path": "/machine/peripheral"}
	if err := m.vm.Execute(m.ctx, "qom-list", path, &devices); err != nil {
		m.t.Fatal(err)
	}
	for _, d := range devices {
		if d.Name == "fbpp0" {
			return true
		}
	}
	return false
}
