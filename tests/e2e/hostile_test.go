// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
)

// hostilePackage is a driver that violates the protocol. It runs instead of the
// agent.
const hostilePackage = "github.com/fbpp-project/fbpp/tests/guest/hostile"

// If a driver violates the protocol, the migration completes without hints. The
// next driver is asked again. One guest runs all of these drivers in turn.
func TestHostileReports(t *testing.T) {
	dir := filepath.Join(parts.Root, "build", "guest")
	binary, err := guest.BuildForGuest(t.Context(), hostilePackage, dir)
	if err != nil {
		t.Fatal(err)
	}
	m := boot(t, setup{
		noAgent: true,
		files:   map[string]string{"/hostile": binary},
		device:  map[string]string{"hint-timeout": "3000"},
		timeout: 3 * hangTimeout, // twenty migrations
	})
	for i, tc := range []struct{ name, status string }{
		{"silent", "driver-timeout"},
		{"started-and-silent", "driver-timeout"},
		{"poison", "refused"},
		{"descending", "ok"},
		{"overlapping", "bad-report"},
		{"overlapping-orders", "bad-report"},
		{"unaligned", "bad-report"},
		{"out-of-range", "ok"}, // fbppd leaves it out: it need not see all of the guest's memory
		{"end-out-of-range", "bad-report"},
		{"largest-order", "bad-report"},
		{"unknown-class", "bad-report"},
		{"wrong-total", "bad-report"},
		{"short", "bad-report"},
		{"long", "bad-report"},
		{"page-shift", "bad-report"},
		{"garbage", "bad-report"},
		{"yesterday", "driver-timeout"},
		{"tomorrow", "driver-timeout"},
		{"endless", "bad-report"},
	} {
		// fbppd's own tests have all of them. Here every other one shows what QEMU does.
		if i%2 == 1 && !*soak {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			defer m.in(t)()
			if err := m.vm.Spawn(m.ctx, agentName, "/hostile", tc.name); err != nil {
				t.Fatal(err)
			}
			if _, err := m.vm.Tell(m.ctx, agentName, ""); err != nil { // its hello was read
				t.Fatal(err)
			}
			requireHints(t, m.migrate(), tc.status)
			m.requireSound()
			m.signalAgent(syscall.SIGKILL)
			m.waitAgent()
		})
	}
	// After all this the device serves a correct driver.
	m.startAgent()
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}
