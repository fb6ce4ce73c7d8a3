// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
)

// portModule drives the serial port. In some of Debian's kernels it is built in.
const portModule = "virtio_console"

// lockedDown is a guest whose kernel gives user space no PCI device, as under Secure Boot.
func lockedDown(series guest.Series) setup {
	return setup{
		series: series, memoryMiB: 768, agentPort: true, modules: []string{portModule},
		kernelLine: []string{"lockdown=integrity"},
	}
}

// The agent reports by the serial port. It does so at the next host, too, whose fbppd is
// another process.
func TestGuestUnderLockdownReports(t *testing.T) {
	for _, series := range guest.AllSeries() {
		then, debian := map[guest.Series]func(*machine){ // the kernels of Debian 12 and 13
			guest.Linux6_1:  (*machine).requireRefusalAtTheNextHost,
			guest.Linux6_12: (*machine).requirePortTakenUpAgain,
		}[series]
		if !debian {
			continue
		}
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, lockedDown(series))
			m.requireFreeSkippedByPort()
			then(m)
		})
	}
}

// requireFreeSkippedByPort moves the guest, whose agent reports by the port before and after.
func (m *machine) requireFreeSkippedByPort() {
	m.t.Helper()
	m.requirePort()
	info, err := m.vm.Fill(m.ctx, 512)
	if err != nil {
		m.t.Fatal(err)
	}
	// A page that is written meanwhile is no free page afterwards.
	m.integrity("pause")
	dst, backend := m.startMigration(0)
	m.awaitHints("ok")
	status, err := m.backend.Control.Status(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Logf("the request took %v", exchange(status.Last))
	figures := m.arrive(dst, backend)
	m.integrity("resume")
	m.requireSound()
	free := min(info.Buddy, m.memory().Buddy)
	m.t.Logf("skipped %d pages of %d that were free", figures.Hints.Skipped, free)
	if skipped := figures.Hints.Skipped; skipped*100 < free*95 {
		m.t.Errorf("skipped %d pages of %d that were free", skipped, free)
	}
	m.awaitDriver()
	m.requirePort()
}

// requireRefusalAtTheNextHost moves the guest to a host that takes no reports by the port.
func (m *machine) requireRefusalAtTheNextHost() {
	m.t.Helper()
	m.setup.backendArgs = append(m.setup.backendArgs, "--agent-port=refuse-only")
	requireHints(m.t, m.migrate(), "ok")
	m.requireRefusal("kernel lockdown is at integrity")
	requireHints(m.t, m.migrate(), "no-driver")
	m.requireSound()
}

// requirePortTakenUpAgain starts agent and fbppd anew, and moves the guest.
func (m *machine) requirePortTakenUpAgain() {
	m.t.Helper()
	m.signalAgent(syscall.SIGKILL)
	m.waitAgent()
	m.startAgent()
	m.requirePort()
	m.backend.Kill()
	if err := m.backend.Restart(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	m.awaitDriver()
	m.requirePort()
	for { // QEMU connects its device to fbppd by another socket
		status, err := m.backend.Control.Status(m.ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		if status.Connected {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	requireHints(m.t, m.migrate(), "ok")
	m.requireSound()
}

// requirePort checks that the driver speaks by the serial port.
func (m *machine) requirePort() {
	m.t.Helper()
	status, err := m.backend.Control.Status(m.ctx)
	if err != nil || status.DriverState != "ready" || !status.Driver.Port {
		m.t.Fatalf("the driver is %q, %+v, %v", status.DriverState, status.Driver, err)
	}
}

// exchange returns the time of a request's phases.
func exchange(x *device.Exchange) map[string]time.Duration {
	phases := make(map[string]time.Duration)
	for _, p := range x.Phases {
		phases[p.Name] = x.Phase(p.Name)
	}
	return phases
}

// The port copies the records once, and QEMU passes them on by a socket.
func TestTimeOfTheSerialPort(t *testing.T) {
	if !*soak {
		t.Skip("it measures, and needs two guests: with -soak")
	}
	const runs = 5
	phases := func(s setup) map[string]time.Duration {
		m := boot(t, s)
		sum := make(map[string]time.Duration)
		for range runs {
			dst, backend := m.startMigration(0)
			m.awaitHints("ok")
			status, err := m.backend.Control.Status(m.ctx)
			if err != nil {
				t.Fatal(err)
			}
			for name, took := range exchange(status.Last) {
				sum[name] += took / runs
			}
			m.arrive(dst, backend)
			m.awaitDriver()
		}
		return sum
	}
	port := lockedDown(guest.Default())
	queues := port
	queues.agentPort, queues.kernelLine = false, nil
	byPort, byQueue := phases(port), phases(queues)
	for name, took := range byQueue {
		t.Logf("%s: %v by the queues, %v by the port: %.2f times", name, took, byPort[name],
			float64(byPort[name])/float64(max(took, 1)))
	}
	if byPort["walk"] == 0 || byPort["transfer"] == 0 {
		t.Errorf("phases by the port: %v", byPort)
	}
}

// At lockdown=confidentiality eBPF cannot read the kernel. The agent says so in its log and
// by the serial port, and at the next host, too.
func TestGuestUnderLockdownRefuses(t *testing.T) {
	s := lockedDown(guest.Default())
	s.memoryMiB, s.noAgent, s.kernelLine = 0, true, []string{"lockdown=confidentiality"}
	m := boot(t, s)
	if err := m.vm.Spawn(m.ctx, agentName, lab.AgentPath); err != nil {
		t.Fatal(err)
	}
	const why = "kernel lockdown is at confidentiality"
	m.requireRefusal(why)
	for said := ""; !strings.Contains(said, why); time.Sleep(10 * time.Millisecond) {
		var err error
		if said, err = m.agentOutput(); err != nil {
			t.Fatalf("the agent's output does not name lockdown: %v", err)
		}
	}
	requireHints(t, m.migrate(), "refused")
	m.requireSound()
	m.requireRefusal(why)
}

// requireRefusal waits until fbppd knows that the driver refuses, and checks the reason.
func (m *machine) requireRefusal(why string) {
	m.t.Helper()
	state, err := m.backend.AwaitDriver(m.ctx)
	if err != nil || state != "refuses" {
		said, _ := m.agentOutput()
		m.t.Fatalf("the driver is %q: %v; the agent says: %s", state, err, said)
	}
	status, err := m.backend.Control.Status(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	if status.Driver.Reason != why || !strings.Contains(m.backend.Log(), why) {
		m.t.Errorf("fbppd says %q, want %q; its log:\n%s", status.Driver.Reason, why, m.backend.Log())
	}
}

// A kernel without uio_pci_generic gives the agent no device either.
func TestGuestWithoutUIO(t *testing.T) {
	const module = "uio_pci_generic.ko"
	s := setup{agentPort: true, modules: []string{portModule}, files: make(map[string]string)}
	modules := parts.Kernel(guest.Default()).Modules
	for _, path := range modules {
		if strings.HasSuffix(path, module) { // another one instead, that is loaded already
			s.files["/modules/"+filepath.Base(path)] = modules[0]
		}
	}
	if len(s.files) != 1 || strings.HasSuffix(modules[0], module) {
		t.Fatalf("the kernel's modules are %q", modules)
	}
	m := boot(t, s)
	m.requirePort()
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}
