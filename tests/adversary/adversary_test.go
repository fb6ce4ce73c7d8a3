// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"context"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

func TestTry(t *testing.T) {
	for _, a := range []Options{{Accel: vm.TCG, NoArming: true}, {Accel: vm.KVM, NoArming: true}, {Accel: vm.KVM, DirtyRing: true, NoArming: true}} {
		t.Run(string(a.Accel), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			parts, err := lab.OpenHost(ctx, func(s string) { t.Log(s) })
			if err != nil {
				t.Fatal(err)
			}
			rom, err := Build(ctx, parts.Root)
			if err != nil {
				t.Fatal(err)
			}
			g, err := Boot(ctx, parts, rom, a)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			for _, r := range Sweep()[:8] {
				begin := time.Now()
				res, err := g.Play(ctx, r)
				if err != nil {
					t.Fatal(r, err)
				}
				t.Log(time.Since(begin), r)
				t.Logf("%+v lost %v %v of %v %v struck %v lost %v", res.Migration.HintStatus(), len(res.Outside), res.Inside, res.Compared, res.Verified, res.Struck, res.LostAt)
			}
		})
	}
}
