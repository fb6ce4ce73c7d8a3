// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/cmd/fbppctl/report"
	"github.com/fbpp-project/fbpp/tests/guest/memory"
)

// One machine moves there and back by each kind of migration that libvirt has, and is
// saved and restored. Its memory arrives as it was, and what is free is not sent.
func TestMigrationsWithLibvirt(t *testing.T) {
	m, a, b := enabled(t)
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
	run("report", func() { m.report() })
	run("monitor", func() { m.monitor() })
	run("live", func() { m.migrate(b) })
	run("p2p", func() { m.migrate(a, "--p2p") })
	run("parallel", func() { m.migrate(b, "--parallel", "--parallel-connections=2") })
	run("abort", func() { m.abort(a) })
	run("postcopy", func() { m.migrateByPostcopy(a) })
	run("managed save", func() {
		m.saveAndRestore([]string{"managedsave", machineName}, []string{"start", machineName})
	})
	run("save and restore", func() {
		file := m.at.path("saved")
		m.saveAndRestore([]string{"save", machineName, file}, []string{"restore", file})
		info, err := os.Stat(file)
		if err != nil {
			m.t.Fatal(err)
		}
		if free := m.freePages() * memory.PageSize; info.Size() > memoryMiB<<20-free*9/10 {
			m.t.Errorf("the file has %d MiB, and %d MiB were free", info.Size()>>20, free>>20)
		}
	})
	m.endLoad()
}

// report has fbppctl measure migrations of the machine, which stays where it is. libvirt does
// not know of them, and goes on with the machine as before.
func (m *machine) report() {
	m.t.Helper()
	m.at.mustRun(m.ctx, "fbppctl", "report", "--domain="+machineName, "--rounds=1",
		"--output=/var/log/report")
	var r report.Report
	if err := json.Unmarshal([]byte(m.at.read("var/log/report.json")), &r); err != nil {
		m.t.Fatal(err)
	}
	if len(r.Measured) != 2 || r.Measured[0].Hints != "disabled" || r.Measured[1].Hints != "ok" ||
		r.Measured[1].Result != "completed" {
		m.t.Errorf("measured %+v", r.Measured)
	}
	m.at.await("libvirt to see that the machine runs", m.ctx, func() bool {
		said, _ := m.at.run(m.ctx, "virsh", "domstate", machineName)
		return strings.TrimSpace(said) == "running"
	})
	m.requireSound()
	m.awaitDriver()
}

// monitor changes a property of the device by QEMU's monitor.
func (m *machine) monitor() {
	m.t.Helper()
	for _, value := range []string{"false", "true"} {
		m.virsh("qemu-monitor-command", machineName, "--hmp",
			"qom-set /machine/peripheral/fbpp0 hints "+value)
		said := m.virsh("qemu-monitor-command", machineName, "--hmp",
			"qom-get /machine/peripheral/fbpp0 hints")
		if strings.TrimSpace(said) != value {
			m.t.Errorf("the property is %q, want %s", said, value)
		}
	}
}

// awaitNoFbppd waits until the hook has stopped the machine's fbppd on a host.
func (m *machine) awaitNoFbppd(at *host) {
	m.t.Helper()
	at.await("the hook to stop fbppd", m.ctx, func() bool {
		_, err := os.Stat(at.path("run/fbpp/" + instance))
		return os.IsNotExist(err)
	})
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
	before := len(m.history(m.at))
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
	m.at.await("fbppd to note that it was cancelled", m.ctx, func() bool {
		all := m.history(m.at)
		return len(all) > before && all[len(all)-1].Result == "cancelled"
	})
}

// saveAndRestore has virsh write the machine to a file, and start it from there.
func (m *machine) saveAndRestore(save, restore []string) {
	m.t.Helper()
	m.awaitKernel() // virsh stops the guest before it saves it
	before, free := len(m.history(m.at)), m.freePages()
	m.virsh(save...)
	m.awaitNoFbppd(m.at)
	m.virsh(restore...)
	m.arrive(m.at)
	m.requireSkipped(m.at, before, free)
}
