// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
)

func TestAgree(t *testing.T) {
	for _, series := range []guest.Series{guest.Linux6_1, guest.Linux6_12, guest.Linux7_3} {
		t.Run(string(series), func(t *testing.T) {
			s := mustBoot(t, machine{series: series, nodes: []int{512}, kinds: allKinds})
			t.Log(s.release, s.loaded)
			files := s.mustPauseWithView(t)
			t.Logf("%s", files["buddyinfo"])
		})
	}
}
