// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// The rule is tested by itself. The library of the test backends does not let them report
// more written bytes than a buffer has.
func TestLengthsInTheUsedRing(t *testing.T) {
	buffers := []vhosttest.Buffer{{Len: 16}, {Len: 8, Write: true}, {Len: 1, Write: true}}
	for _, tc := range []struct {
		name          string
		exact         bool
		length        uint32
		most, atLeast bool
	}{
		{"what the device fills", true, 9, true, true},
		{"less than it fills", true, 8, true, false},
		{"less, where it need not fill all", false, 8, true, true},
		{"more than there is room for", true, 10, false, true},
		{"more, where it need not fill all", false, 10, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &Request{Buffers: buffers, Exact: tc.exact}
			if got := atMost(r, tc.length); got != tc.most {
				t.Errorf("not too long: %v", got)
			}
			if got := atLeast(r, tc.length); got != tc.atLeast {
				t.Errorf("not too short: %v", got)
			}
		})
	}
}
