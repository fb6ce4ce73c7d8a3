// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"strings"
	"testing"
)

// On a machine without the device nothing is found, with or without an address.
func TestFindWithoutTheDevice(t *testing.T) {
	for wanted, says := range map[string]string{
		"":             "0 of them",
		"ffff:ff:1f.7": "no PCI device is at ffff:ff:1f.7",
	} {
		if bdf, err := Find(wanted); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: found %q, %v; want an error that says %q", wanted, bdf, err, says)
		}
	}
}
