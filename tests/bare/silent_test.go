// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// Parts of lines in QEMU's log.
const (
	saysNone   = "warning: vhost-user-fbpp fbpp0: no back-end: "
	saysLost   = saysNone + "it has closed the connection; until there is one"
	saysSilent = saysNone + "it did not answer request"
	saysBack   = "vhost-user-fbpp fbpp0: the back-end is there"
)

// When a backend dies, QEMU logs one line that names the device and the consequence.
// When the backend is back, QEMU logs another.
func TestLostBackendIsOneLineInTheLog(t *testing.T) {
	b := startFBPPD(t)
	m := start(t, config(b.Socket))
	m.startDriver(low)
	m.awaitStarted(b)
	m.requireSaid()
	b.Kill()
	m.awaitSaid(saysLost, 1)
	m.requireRuns()
	// QEMU's chardev logs that it cannot reconnect.
	m.awaitSaid("Unable to connect character device fbpp", 1)
	if err := b.Restart(m.ctx); err != nil {
		t.Fatal(err)
	}
	m.awaitStarted(b)
	m.awaitSaid(saysBack+"\n", 1)
	m.requireSaid(saysLost, "Unable to connect character device fbpp", saysBack)
}

// A stopped backend delays QEMU for no longer than backend-timeout, whatever QEMU
// requests. QEMU gives the backend up then, and uses it again when it continues.
func TestStoppedBackend(t *testing.T) {
	for _, tc := range []struct {
		name string
		idle bool // the driver has not been started
		do   func(m *machine)
	}{
		{name: "a migration", do: func(m *machine) {
			c := m.Config
			c.Backend = startFBPPD(m.t).Socket
			figures := m.migrate(startIncoming(m.t, c), vm.Transfer{})
			if figures.HintStatus() != "no-backend" {
				m.t.Errorf("the hints ended with %q", figures.HintStatus())
			}
			m.execute("cont", nil)
		}},
		{name: "a migration that is given up", do: func(m *machine) {
			c := m.Config
			c.Backend = ""
			dst := startIncoming(m.t, c)
			if err := m.StartMigration(m.ctx, dst.VM, 1<<10); err != nil {
				m.t.Fatal(err)
			}
			if err := m.CancelMigration(m.ctx); err != nil {
				m.t.Fatal(err)
			}
		}},
		{name: "the driver starts", idle: true, do: func(m *machine) { m.startDriver(low) }},
		{name: "the driver stops", do: func(m *machine) { m.stopDriver(); m.startDriver(low) }},
		{name: "the machine is stopped", do: func(m *machine) {
			m.execute("stop", nil)
			m.execute("cont", nil)
		}},
		{name: "the machine is reset", do: func(m *machine) {
			m.execute("system_reset", nil)
			m.requireRuns()
			m.startDriver(low)
		}},
		{name: "memory is plugged in", do: func(m *machine) {
			m.execute("object-add", map[string]any{
				"qom-type": "memory-backend-memfd", "id": "more", "size": 64 << 20,
			})
			m.execute("device_add", map[string]any{"driver": "pc-dimm", "id": "dimm", "memdev": "more"})
		}},
		{name: "dirty pages are counted", do: func(m *machine) {
			m.execute("calc-dirty-rate", map[string]any{"calc-time": 1, "mode": "dirty-bitmap"})
			m.await("the rate", func() bool {
				var rate struct{ Status string }
				err := m.Execute(m.ctx, "query-dirty-rate", nil, &rate)
				return err == nil && rate.Status == "measured"
			})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := startFBPPD(t)
			c := config(b.Socket)
			c.Options = []string{"-m", "64M,slots=2,maxmem=1G", "-action", "reboot=reset"}
			m := start(t, c)
			m.awaitConnected(b)
			if !tc.idle {
				m.startDriver(low)
				m.awaitStarted(b)
			}
			m.setTimeout(300)
			b.Signal(syscall.SIGSTOP)
			tc.do(m)
			m.requireRuns()
			m.awaitSaid(saysSilent, 1) // QEMU's output arrives through a pipe
			if n := m.countSaid(saysSilent); n != 1 {
				t.Fatalf("%d lines of %q\n%s", n, saysSilent, m.Messages())
			}
			m.setTimeout(20000)
			b.Signal(syscall.SIGCONT)
			m.awaitSaid(saysBack, 1)
			m.awaitStarted(b)
		})
	}
}

// A backend may fall silent after any message of QEMU; the test tries every third.
// QEMU starts nevertheless, gives the backend up once, and uses it when it answers
// again.
func TestBackendThatFallsSilent(t *testing.T) {
	b := startFBPPD(t)
	for n := 0; ; n += 3 {
		reached := false
		t.Run(fmt.Sprintf("after %d messages", n), func(t *testing.T) {
			r := startRelay(t, b.Socket, n)
			c := config(r.socket)
			c.Device["backend-timeout"] = "300"
			m := start(t, c)
			m.startDriver(low)
			m.requireRuns()
			m.await("the queues are the backend's, or it is silent", func() bool {
				return r.fell.Load() > 0 || mapped(t, b) > 0
			})
			m.execute("stop", nil)
			m.execute("cont", nil)
			if reached = r.fell.Load() > 0; !reached {
				return // QEMU sent no more than n messages
			}
			m.execute("stop", nil) // this needs an answer, if no message before did
			m.execute("cont", nil)
			m.awaitSaid(saysNone+"it d", 1)
			m.setTimeout(20000)
			r.speak()
			m.awaitSaid(saysBack, 1)
			m.awaitStarted(b)
			m.requireNothingTwice()
			m.Close()
			m.await("fbppd is free again", func() bool { return mapped(t, b) == 0 })
		})
		if !reached || t.Failed() {
			break
		}
	}
}

// A VM that names the socket of another VM's backend starts without a backend, and
// says so once. It gets the backend when the other VM has ended.
func TestSocketOfAnotherVM(t *testing.T) {
	b := startFBPPD(t)
	first := start(t, config(b.Socket))
	first.startDriver(low)
	first.awaitStarted(b)
	c := config(b.Socket)
	c.Device["backend-timeout"] = "300"
	second := start(t, c)
	second.requireRuns()
	second.startDriver(low)
	second.awaitSaid(saysNone, 1)
	second.execute("stop", nil)
	second.execute("cont", nil)
	first.requireRuns()
	second.setTimeout(20000)
	first.Close()
	second.awaitSaid(saysBack, 1)
	second.awaitStarted(b)
	second.requireNothingTwice()
}

// requireNothingTwice checks that QEMU has logged no line twice.
func (m *machine) requireNothingTwice() {
	m.t.Helper()
	said := make(map[string]bool)
	for line := range strings.Lines(m.Messages()) {
		if said[line] {
			m.t.Fatalf("QEMU repeats itself:\n%s", m.Messages())
		}
		said[line] = true
	}
}
