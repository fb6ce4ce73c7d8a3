// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"regexp"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// sick is what a kernel says that found damage in its own memory. It may live on.
// Emulated processors stall without any, so stalls and lockups do not count.
var sick = regexp.MustCompile(`BUG: (Bad|unable|kernel|non-zero|sleeping)|Oops|` +
	`general protection|Bad page|Bad rss|corrupt`)

// requireHealthy checks that a guest's kernel found no damage while it ran in v,
// unless damage is to be expected.
func (m *machine) requireHealthy(v *vm.VM) {
	m.t.Helper()
	if m.setup.device["x-arm"] == "off" {
		return
	}
	if line := sick.FindString(v.Console()); line != "" {
		m.t.Fatalf("the guest's kernel says %q: %s", line, v.Diagnosis())
	}
}
