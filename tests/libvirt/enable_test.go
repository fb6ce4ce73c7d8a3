// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// hangTimeout ends a test that hangs, and bootTimeout a guest that does not boot. They
// assert no speed.
const (
	hangTimeout = 15 * time.Minute
	bootTimeout = 3 * time.Minute
)

// enabled returns two hosts, and a machine that is defined on the first and has the
// device. It does not run yet.
func enabled(t *testing.T) (m *machine, a, b *host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	t.Cleanup(cancel)
	a, b = startHosts(t, ctx)
	m = &machine{t: t, ctx: ctx, at: a}
	folder, err := os.MkdirTemp("", "fbpp-lv-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	m.define(folder)
	m.enable()
	return m, a, b
}

// enable gives the machine the device and the serial port with fbppctl, once and again.
func (m *machine) enable() {
	m.t.Helper()
	words := []string{"libvirt", "enable", "--emulator=/usr/local/bin/qemu-system-x86_64",
		"--port", "--property=hint-timeout=20000", machineName}
	if said := m.fbppctl(words...); !strings.Contains(said, "+") {
		m.t.Errorf("enable says %q", said)
	}
	if said := m.fbppctl(words...); said != "Nothing to change.\n" {
		m.t.Errorf("enable again says %q", said)
	}
	var s struct {
		Enabled bool
		Unit    string
	}
	err := json.Unmarshal([]byte(m.fbppctl("--json", "libvirt", "show", machineName)), &s)
	if err != nil || !s.Enabled || s.Unit != "fbppd@"+instance+".service" {
		m.t.Errorf("libvirt show says %+v: %v", s, err)
	}
}

// A machine starts where systemd does not start its fbppd, and the log says why. After a
// restart of libvirt the hook starts fbppd for the machine that runs. When the machine
// ends, it ends fbppd.
func TestMachineStartsWithoutFbppd(t *testing.T) {
	m, a, _ := enabled(t)
	m.refuse()
	a.write("run/no-systemd", "")
	m.virsh("start", machineName, "--paused")
	if state := m.virsh("domstate", machineName); strings.TrimSpace(state) != "paused" {
		t.Errorf("the machine is %q", state)
	}
	const want = `fbppctl: start fbppd@web\x201.service: exit status 1`
	if said := a.read("var/log/fbpp-hook.log"); !strings.Contains(said, want) {
		t.Errorf("the hook says %q, want %q", said, want)
	}
	if err := os.Remove(a.path("run/no-systemd")); err != nil {
		t.Fatal(err)
	}
	a.mustRun(m.ctx, "sh", "-c", "kill $(pidof libvirtd)") // host.sh starts it again
	a.await("QEMU to connect to fbppd", m.ctx, func() bool {
		s, err := m.fbppd()
		return err == nil && s.Connected
	})
	a.await("libvirtd to answer", m.ctx, func() bool {
		_, err := a.run(m.ctx, "virsh", "uri")
		return err == nil
	})
	m.virsh("destroy", machineName)
	m.awaitNoFbppd(a)
}

// refuse has fbppctl refuse a machine, which stays as it is.
func (m *machine) refuse() {
	m.t.Helper()
	const name = "nvdimm"
	m.at.write("root.xml", `<domain type='qemu'><name>nvdimm</name><memory unit='GiB'>2</memory>
<maxMemory slots='2' unit='GiB'>4</maxMemory>
<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<cpu><numa><cell id='0' cpus='0' memory='1' unit='GiB'/></numa></cpu>
<devices><memory model='nvdimm'><source><path>/var/nvdimm</path></source>
<target><size unit='GiB'>1</size><node>0</node></target></memory></devices></domain>`)
	m.virsh("define", m.at.path("root.xml"))
	before := m.virsh("dumpxml", name)
	_, err := m.at.run(m.ctx, "fbppctl", "libvirt", "enable", name)
	if err == nil || !strings.Contains(err.Error(), "an NVDIMM is not shared") {
		m.t.Errorf("enable says %v", err)
	}
	if m.virsh("dumpxml", name) != before {
		m.t.Error("a machine that was refused has changed")
	}
	m.virsh("undefine", name)
}
