// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// Parts of what QEMU's log says.
const (
	saysLost     = "warning: vhost-user-fbpp fbpp0: no back-end: it has closed the connection; until there is one"
	saysSilent   = "warning: vhost-user-fbpp fbpp0: no back-end: it did not answer request"
	saysNoAnswer = "warning: vhost-user-fbpp fbpp0: no back-end: it does not answer: it is stopped, or serves another VM"
	saysBack     = "vhost-user-fbpp fbpp0: the back-end is there"
)

// A backend that dies is lost with one line that names the device and what it
// means, and found again with another.
func TestLossIsOneLine(t *testing.T) {
	b := startFBPPD(t)
	m := start(t, config(b.Socket))
	m.startDriver(low)
	m.awaitStarted(b)
	m.requireSaid()
	b.Kill()
	m.awaitSaid(saysLost, 1)
	m.requireRuns()
	// The chardev has a line of its own about a socket that nobody listens on.
	m.awaitSaid("Unable to connect character device fbpp", 1)
	if err := b.Restart(m.ctx); err != nil {
		t.Fatal(err)
	}
	m.awaitStarted(b)
	m.awaitSaid(saysBack, 1)
	m.requireSaid(saysLost, "Unable to connect character device fbpp", saysBack)
}

// A backend that is stopped holds nothing up for longer than backend-timeout,
// whatever QEMU wants of it. It is lost then, and when it goes on it is back.
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
		{name: "the machine is stopped", do: func(m *machine) { m.execute("stop", nil); m.execute("cont", nil) }},
		{name: "the machine is reset", do: func(m *machine) {
			m.execute("system_reset", nil)
			m.requireRuns()
			m.startDriver(low)
		}},
		{name: "memory is plugged in", do: func(m *machine) {
			m.execute("object-add", map[string]any{"qom-type": "memory-backend-memfd", "id": "more", "size": 64 << 20})
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
			b.Signal(syscall.SIGSTOP)
			tc.do(m)
			m.requireRuns()
			if n := m.countSaid(saysSilent); n != 1 {
				t.Fatalf("%d lines of %q\n%s", n, saysSilent, m.Messages())
			}
			b.Signal(syscall.SIGCONT)
			m.awaitSaid(saysBack, 1)
			m.awaitStarted(b)
		})
	}
}

// A backend may fall silent after any of QEMU's messages: QEMU starts all the
// same, does not wait for it again and again, and takes it when it speaks.
func TestBackendThatFallsSilent(t *testing.T) {
	b := startFBPPD(t)
	for n := 0; ; n++ {
		reached := false
		t.Run(fmt.Sprintf("after %d messages", n), func(t *testing.T) {
			r := startRelay(t, b.Socket, n)
			c := config(r.socket)
			c.Device["backend-timeout"] = "50"
			m := start(t, c)
			m.startDriver(low)
			m.requireRuns()
			m.await("the queues are the backend's, or it is silent", func() bool {
				return r.fell.Load() > 0 || mapped(t, b) > 0
			})
			m.execute("stop", nil)
			m.execute("cont", nil)
			if reached = r.fell.Load() > 0; !reached {
				return // it was all that QEMU said
			}
			m.awaitSaid("warning: vhost-user-fbpp fbpp0: no back-end: it d", 1)
			r.speak()
			m.awaitSaid(saysBack, 1)
			m.awaitStarted(b)
			if n := m.countSaid("\n"); n != 2 {
				t.Errorf("QEMU said %d lines, not one for the loss and one for the end of it:\n%s", n, m.Messages())
			}
			m.Close()
			m.await("fbppd is free again", func() bool { return mapped(t, b) == 0 })
		})
		if !reached || t.Failed() {
			break
		}
	}
}

// A VM that names another VM's socket starts without a backend, and says so
// once. It has the backend when the other one is gone.
func TestSocketOfAnotherVM(t *testing.T) {
	b := startFBPPD(t)
	first := start(t, config(b.Socket))
	first.startDriver(low)
	first.awaitStarted(b)
	second := start(t, config(b.Socket))
	second.requireRuns()
	second.startDriver(low)
	second.awaitSaid("warning: vhost-user-fbpp fbpp0: no back-end:", 1)
	second.execute("stop", nil)
	second.execute("cont", nil)
	first.requireRuns()
	first.Close()
	second.awaitSaid(saysBack, 1)
	second.awaitStarted(b)
	if n := second.countSaid("warning"); n != 1 {
		t.Errorf("QEMU warns %d times:\n%s", n, second.Messages())
	}
}
