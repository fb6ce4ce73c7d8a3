// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"strings"
	"testing"
)

// A machine without the device has none, at whatever address.
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
