// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"regexp"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// sick matches what a kernel logs when it finds damage in its own memory, which
// need not end it. Stalls and lockups do not count: emulated processors stall
// without any damage.
var sick = regexp.MustCompile(`BUG: (Bad|unable|kernel|non-zero|sleeping)|Oops|` +
	`general protection|Bad page|Bad rss|corrupt`)

// requireHealthy checks that the guest's kernel found no damage while it ran in
// v. It checks nothing if the device does not arm the log: damage is expected then.
func (m *machine) requireHealthy(v *vm.VM) {
	m.t.Helper()
	if m.setup.device["x-arm"] == "off" {
		return
	}
	if line := sick.FindString(v.Console()); line != "" {
		m.t.Fatalf("the guest's kernel says %q: %s", line, v.Diagnosis())
	}
}
