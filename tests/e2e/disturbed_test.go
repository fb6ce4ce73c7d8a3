// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
)

// When another program in the guest disturbs the device, the agent notices, sets
// the device up again and answers the next migration. The agent's process goes on.
func TestDisturbedDeviceIsSetUpAgain(t *testing.T) {
	for _, series := range guest.OldestAndNewest() {
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, setup{
				series: series, port: "port0", memoryMiB: 256, poolPages: 4096, timeout: 2 * hangTimeout,
			})
			for _, c := range []struct{ name, how string }{
				{"somebody opens and closes the uio device", "uio"},
				{"somebody clears bus mastering", "master"},
				{"somebody switches its registers off", "memory"},
				{"somebody resets it", "reset"},
				{"somebody unbinds it", "unbind"},
				{"somebody gives it to another driver", "override"},
				{"it is unplugged, and plugged in", "replug"},
			} {
				t.Run(c.name, func(t *testing.T) {
					defer m.in(t)()
					m.disturbAgent(c.how)
				})
			}
			// Masking INTx does not make the agent set the device up again, so
			// there is no new hello to wait for.
			m.disturb("intx")
			requireHints(t, m.migrate(), "ok")
			m.awaitDriver()
			m.disturbAgent("uio") // once more at the destination
			requireHints(t, m.migrate(), "ok")
			m.requireSound()
		})
	}
}

// disturbAgent disturbs the device until the agent has set it up again.
func (m *machine) disturbAgent(how string) {
	m.t.Helper()
	hellos := m.hellos()
	m.disturb(how)
	for m.hellos() == hellos {
		time.Sleep(10 * time.Millisecond) // until hellos fails at the end of the test's time
	}
	m.awaitDriver()
}

// disturb has a program in the guest disturb the device: tests/guest/init names
// the ways.
func (m *machine) disturb(how string) {
	m.t.Helper()
	if _, err := m.vm.Run(m.ctx, "/init", "disturb", how); err != nil {
		m.t.Fatal(err)
	}
}

// hellos counts how often the agent has said hello.
func (m *machine) hellos() int {
	m.t.Helper()
	said, err := m.agentOutput()
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Count(said, "said hello")
}
