// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// The machine's name needs to be escaped for systemd.
const (
	machineName = "web 1"
	instance    = `web\x201`
	memoryMiB   = 512
)

// definition is the machine's XML as an operator would write it, without the device. Its
// network is that of the two hosts, and its disk a file that both have.
const definition = `<domain type='qemu'>
  <name>web 1</name>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>%[1]s/kernel</kernel>
    <initrd>%[1]s/initramfs</initrd>
    <cmdline>console=ttyS0 panic=-1 quiet no_timer_check</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'>
    <feature policy='disable' name='erms'/>
    <feature policy='disable' name='fsrm'/>
  </cpu>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='%[1]s/disk'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='mcast'>
      <source address='230.0.0.1' port='5558'/>
      <model type='virtio'/>
    </interface>
    <serial type='file'><source path='/var/log/console.log'/></serial>
    <serial type='unix'><source mode='connect' path='/run/orders.sock'/></serial>
  </devices>
</domain>
`

// machine is a guest that moves between the hosts.
type machine struct {
	t     *testing.T // the test or subtest that uses it now
	ctx   context.Context
	at    *host
	guest *vm.VM
}

// define defines the machine on a host, with its kernel, initramfs and disk in a folder
// that both hosts have.
func (m *machine) define(folder string) {
	m.t.Helper()
	for name, source := range map[string]string{
		"kernel": config.Kernel.Image, "initramfs": config.Initramfs,
	} {
		text, err := os.ReadFile(source)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), text, 0o644)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	disk, err := os.Create(filepath.Join(folder, "disk"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer disk.Close()
	if err := disk.Truncate(64 << 20); err != nil {
		m.t.Fatal(err)
	}
	if err := disk.Chown(qemuUserID, qemuUserID); err != nil {
		m.t.Fatal(err)
	}
	m.at.write("root.xml", fmt.Sprintf(definition, folder))
	m.virsh("define", m.at.path("root.xml"))
}

// virsh runs a command of virsh on the host that has the machine.
func (m *machine) virsh(words ...string) string {
	m.t.Helper()
	return m.at.mustRun(m.ctx, append([]string{"virsh"}, words...)...)
}

// fbppctl runs a command of fbppctl there.
func (m *machine) fbppctl(words ...string) string {
	m.t.Helper()
	return m.at.mustRun(m.ctx, append([]string{"fbppctl"}, words...)...)
}

// boot starts the machine and its programs.
func (m *machine) boot() {
	m.t.Helper()
	lost := func(err error) {
		m.t.Logf("the guest was lost while it booted, once more: %v", err)
		m.guest.Close()
		_, _ = m.at.run(m.ctx, "virsh", "destroy", machineName) // it may have ended
	}
	err := vm.RetryBoot(vm.TCG, lost, func() (err error) {
		m.virsh("start", machineName)
		if m.guest, err = m.at.guest(m.ctx); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(m.ctx, bootTimeout, vm.ErrHung)
		defer cancel()
		_, err = m.guest.Guest.Ready(ctx)
		return err
	})
	if err != nil {
		m.t.Fatalf("%v\nthe console: %s", err, m.at.read("var/log/console.log"))
	}
	if err := m.guest.Spawn(m.ctx, "agent", lab.AgentPath); err != nil {
		m.t.Fatal(err)
	}
	m.awaitDriver()
	// Free pages are not zero then: a page that is skipped wrongly cannot be right by
	// chance.
	if _, err := m.guest.Fill(m.ctx, memoryMiB/2); err != nil {
		m.t.Fatal(err)
	}
	m.startLoad()
}

// startLoad puts memory, disk and network in motion.
func (m *machine) startLoad() {
	m.t.Helper()
	pool := memory.PoolOptions{Pages: 2048, Seed: 1}
	if err := m.guest.StartIntegrity(m.ctx, pool); err != nil {
		m.t.Fatal(err)
	}
	for _, words := range [][]string{
		{"/bin/ip", "address", "add", "10.0.1.1/24", "broadcast", "10.0.1.255", "dev", "eth0"},
		{"/bin/ip", "link", "set", "eth0", "up"},
	} {
		if _, err := m.guest.Run(m.ctx, words...); err != nil {
			m.t.Fatal(err)
		}
	}
	for name, words := range map[string][]string{
		"ping": {"/bin/ping", "-n", "-q", "-b", "-i", "0.05", "10.0.1.255"},
		"fio": {"/bin/fio", "--name=load", "--filename=/dev/vda", "--thread", "--ioengine=libaio",
			"--direct=1", "--rw=randwrite", "--bsrange=4k-64k", "--iodepth=4", "--size=8m",
			"--verify=crc32c", "--verify_fatal=1", "--verify_backlog=32", "--randseed=1",
			"--loops=1000000"},
	} {
		if err := m.guest.Spawn(m.ctx, name, words...); err != nil {
			m.t.Fatal(err)
		}
	}
}

// fbppd returns what the machine's fbppd says about itself.
func (m *machine) fbppd() (device.Status, error) {
	socket := m.at.path("run/fbpp/" + instance + "/control.sock")
	return control.NewClient(socket).Status(m.ctx)
}

// awaitDriver waits until the machine's fbppd knows the agent.
func (m *machine) awaitDriver() {
	m.t.Helper()
	m.at.await("the guest's driver", m.ctx, func() bool {
		s, err := m.fbppd()
		return err == nil && s.DriverState == "ready"
	})
}

// awaitKernel waits until the machine's fbppd has seen the guest's kernel run. It needs that to
// look at a guest that is paused.
func (m *machine) awaitKernel() {
	m.t.Helper()
	m.at.await("the guest's kernel to be found", m.ctx, func() bool {
		s, err := m.fbppd()
		return err == nil && s.Kernel != nil && s.Kernel.Release != "" && s.Kernel.Why == ""
	})
}

// motion counts what the guest's disk and network have done.
func (m *machine) motion() (writes, packets int) {
	m.t.Helper()
	said, err := m.guest.Run(m.ctx, "/bin/cat", "/sys/block/vda/stat",
		"/sys/class/net/eth0/statistics/tx_packets")
	if err != nil {
		m.t.Fatal(err)
	}
	words := strings.Fields(said)
	if len(words) < 6 {
		m.t.Fatalf("the statistics are %q", said)
	}
	for _, n := range []struct {
		word string
		to   *int
	}{{words[4], &writes}, {words[len(words)-1], &packets}} {
		if *n.to, err = strconv.Atoi(n.word); err != nil {
			m.t.Fatal(err)
		}
	}
	return writes, packets
}

// requireSound has the integrity program verify all of its memory, and checks that
// memory, disk and network go on.
func (m *machine) requireSound() {
	m.t.Helper()
	before := m.integrity("verify")
	if before.Mismatched != 0 || before.Error != "" || before.Verified == 0 {
		m.t.Fatalf("the guest's memory is damaged: %+v", before)
	}
	writes, packets := m.motion()
	m.at.await("memory, disk and network to go on", m.ctx, func() bool {
		w, p := m.motion()
		return m.integrity("status").Count > before.Count && w > writes && p > packets
	})
}

func (m *machine) integrity(order string) memory.Report {
	m.t.Helper()
	r, err := m.guest.Integrity(m.ctx, order)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// endLoad ends fio, and checks that all it has read was what it had written.
func (m *machine) endLoad() {
	m.t.Helper()
	r, err := m.guest.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpSignal, Name: "fio",
		Signal: int(syscall.SIGINT)})
	if err == nil {
		r, err = m.guest.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpWait, Name: "fio"})
	}
	if err != nil || !strings.Contains(r.Output, "terminating on signal 2") ||
		!strings.Contains(r.Output, "err= 0") {
		m.t.Errorf("fio ended with %v and status %d: %s", err, r.Exit, r.Output)
	}
}

// history returns what fbppd has written down on a host: that outlives it.
func (m *machine) history(h *host) []device.Migration {
	m.t.Helper()
	var all []device.Migration
	for line := range strings.Lines(h.read("var/lib/fbpp/" + instance + "/history")) {
		var one device.Migration
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			m.t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

// freePages returns how many pages of the guest are free now.
func (m *machine) freePages() int64 {
	m.t.Helper()
	info, err := m.guest.Memory(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return info.Buddy
}

// requireSkipped checks that the newest migration from a host has left out nearly all
// that was free.
func (m *machine) requireSkipped(from *host, before int, free int64) {
	m.t.Helper()
	all := m.history(from)
	if len(all) != before+1 {
		m.t.Fatalf("the history of %s has %d migrations, want %d", from.name, len(all), before+1)
	}
	last := all[before]
	m.t.Logf("skipped %d MiB of %d MiB free, sent %d MiB in %d ms", last.SkippedBytes>>20,
		free*memory.PageSize>>20, last.TransferredBytes>>20, last.TotalMS)
	if last.Result != "completed" || last.Hints != "ok" {
		m.t.Errorf("the migration is %+v", last)
	}
	if skipped := int64(last.SkippedBytes / memory.PageSize); skipped*100 < free*95 {
		m.t.Errorf("skipped %d pages of %d that were free", skipped, free)
	}
}
