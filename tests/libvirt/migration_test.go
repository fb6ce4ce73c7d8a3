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

// One machine moves there and back by each kind of migration that libvirt has, and is
// saved and restored. Its memory arrives as it was, and what is free is not sent.
func TestMigrationsWithLibvirt(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	t.Cleanup(cancel)
	a, b := startHosts(t, ctx)
	m := &machine{t: t, ctx: ctx, at: a}
	folder, err := os.MkdirTemp("", "fbpp-lv-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	m.refuse()
	m.define(folder)
	m.enable()
	for _, h := range []*host{a, b} {
		h.write("etc/fbpp/"+instance+".conf", "FBPPD_OPTIONS=\"--source=auto\"\n")
	}
	m.boot()
	m.requireSound()

	run := func(name string, f func()) {
		t.Run(name, func(t *testing.T) {
			outer := m.t
			m.t, a.t, b.t = t, t, t
			defer func() { m.t, a.t, b.t = outer, outer, outer }()
			f()
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	run("live", func() { m.migrate(b) })
	run("p2p", func() { m.migrate(a, "--p2p") })
	run("parallel", func() { m.migrate(b, "--parallel", "--parallel-connections=2") })
	run("abort", func() { m.abort(a) })
	run("postcopy", func() { m.migrateByPostcopy(a) })
	run("save and restore", func() { m.saveAndRestore() })
	m.endLoad()
	run("without fbppd", func() { m.startWithoutFbppd() })
}

// startWithoutFbppd ends the machine, with which the hook ends fbppd, and starts it where
// systemd refuses to start that.
func (m *machine) startWithoutFbppd() {
	m.t.Helper()
	m.virsh("destroy", machineName)
	m.awaitNoFbppd(m.at)
	m.at.write("run/no-systemd", "")
	m.virsh("start", machineName, "--paused")
	if state := m.virsh("domstate", machineName); state != "paused\n\n" {
		m.t.Errorf("the machine is %q", state)
	}
	const want = `fbppctl: start fbppd@web\x201.service: exit status 1`
	if said := m.at.read("var/log/fbpp-hook.log"); !strings.Contains(said, want) {
		m.t.Errorf("the hook says %q, want %q", said, want)
	}
	m.virsh("destroy", machineName)
}

// awaitNoFbppd waits until the hook has stopped the machine's fbppd on a host.
func (m *machine) awaitNoFbppd(at *host) {
	m.t.Helper()
	at.await("the hook to stop fbppd", m.ctx, func() bool {
		_, err := os.Stat(at.path("run/fbpp/" + instance))
		return os.IsNotExist(err)
	})
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

// enable gives the machine the device with fbppctl, once and again.
func (m *machine) enable() {
	m.t.Helper()
	words := []string{"libvirt", "enable", "--emulator=/usr/local/bin/qemu-system-x86_64",
		"--property=hint-timeout=20000", machineName}
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

// migrateCommand returns the command that moves the machine to another host. Both have
// its disk, but not on a file system that libvirt knows to be shared: hence --unsafe.
func migrateCommand(to *host, options ...string) []string {
	return append([]string{"virsh", "migrate", "--live", "--persistent", "--undefinesource",
		"--unsafe", machineName, "qemu+tcp://" + to.name + "/system"}, options...)
}

// migrate moves the machine to another host.
func (m *machine) migrate(to *host, options ...string) {
	m.t.Helper()
	from, before, free := m.at, len(m.history(m.at)), m.freePages()
	from.mustRun(m.ctx, migrateCommand(to, options...)...)
	m.arrive(to)
	m.requireSkipped(from, before, free)
	m.awaitNoFbppd(from)
}

// arrive takes it that the machine is at a host now, and checks that all is well.
func (m *machine) arrive(at *host) {
	m.t.Helper()
	m.guest.Guest.Close()
	var err error
	if m.guest, err = at.guest(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	m.at = at
	m.requireSound()
	m.awaitDriver()
}

// begin begins to move the machine to another host, and returns when memory is being sent.
// By then fbppd has answered. The error of virsh comes when it has ended.
func (m *machine) begin(to *host, options ...string) (ended <-chan error) {
	m.t.Helper()
	from, errs := m.at, make(chan error, 1)
	go func() {
		_, err := from.run(m.ctx, migrateCommand(to, append(options, "--bandwidth=1")...)...)
		errs <- err
	}()
	from.await("the migration to send memory", m.ctx, func() bool {
		if len(errs) > 0 {
			m.t.Fatalf("the migration ended: %v", <-errs)
		}
		said, _ := from.run(m.ctx, "virsh", "domjobinfo", machineName)
		return strings.Contains(said, "Memory processed:") &&
			!strings.Contains(said, "Memory processed: 0.000")
	})
	return errs
}

// migrateByPostcopy moves the machine to another host, where it runs before all of its
// memory is there.
func (m *machine) migrateByPostcopy(to *host) {
	m.t.Helper()
	from, before, free := m.at, len(m.history(m.at)), m.freePages()
	ended := m.begin(to, "--postcopy", "--postcopy-bandwidth=16")
	m.virsh("migrate-postcopy", machineName)
	to.await("the machine to run by postcopy", m.ctx, func() bool {
		if len(ended) > 0 {
			m.t.Fatalf("the migration ended before: %v", <-ended)
		}
		said, _ := to.run(m.ctx, "virsh", "domstate", "--reason", machineName)
		return strings.Contains(said, "post-copy")
	})
	if err := <-ended; err != nil {
		m.t.Fatal(err)
	}
	m.arrive(to)
	m.requireSkipped(from, before, free)
	m.awaitNoFbppd(from)
}

// abort begins to move the machine to another host, and aborts that in the middle. The
// machine stays.
func (m *machine) abort(to *host) {
	m.t.Helper()
	ended := m.begin(to)
	m.virsh("domjobabort", machineName)
	if err := <-ended; err == nil {
		m.t.Error("the migration that was aborted has ended well")
	}
	incoming, err := to.guest(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	incoming.Guest.Close()
	m.awaitNoFbppd(to)
	m.requireSound()
	m.awaitDriver()
	all := m.history(m.at)
	if last := all[len(all)-1]; last.Result != "cancelled" {
		m.t.Errorf("the history says %+v", last)
	}
}

// saveAndRestore writes the machine to a file, and starts it from there.
func (m *machine) saveAndRestore() {
	m.t.Helper()
	before, free := len(m.history(m.at)), m.freePages()
	m.virsh("managedsave", machineName)
	m.virsh("start", machineName)
	m.arrive(m.at)
	m.requireSkipped(m.at, before, free)
}
