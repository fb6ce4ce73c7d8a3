// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

func TestPhasesAddUpToTheExchange(t *testing.T) {
	const never = -1
	for name, c := range map[string]struct {
		// In milliseconds. The guest measures drop and walk.
		started, drop, walk, decode, total int
		want                               [5]int
	}{
		"one part after the other":          {2, 3, 4, 1, 13, [5]int{2, 3, 4, 3, 1}},
		"STARTED is read after the walk":    {94, 0, 4, 1, 95, [5]int{90, 0, 4, 0, 1}},
		"STARTED is read within the walk":   {3, 0, 4, 1, 7, [5]int{2, 0, 4, 0, 1}},
		"no STARTED":                        {never, 2, 4, 1, 12, [5]int{0, 2, 4, 5, 1}},
		"a walk longer than the exchange":   {2, 9, 50, 1, 10, [5]int{0, 0, 9, 0, 1}},
		"a drop longer than the exchange":   {2, 90, 5, 1, 10, [5]int{0, 4, 5, 0, 1}},
		"decoding goes on while it is sent": {2, 0, 4, 8, 10, [5]int{0, 0, 2, 0, 8}},
	} {
		t.Run(name, func(t *testing.T) {
			at := func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }
			raised := time.Now()
			x := &request{
				findings: &source.Findings{},
				raised:   raised,
				drops:    true,
				trailer: protocol.Trailer{
					WalkUS: uint32(at(c.walk).Microseconds()),
					DropUS: uint32(at(c.drop).Microseconds()),
				},
				decode: at(c.decode),
			}
			if c.started != never {
				x.started = raised.Add(at(c.started))
			}
			x.conclude(raised.Add(at(c.total)))
			want := []source.Phase{
				{Name: "wakeup", Time: at(c.want[0])}, {Name: "drop", Time: at(c.want[1])},
				{Name: "walk", Time: at(c.want[2])},
				{Name: "transfer", Time: at(c.want[3])}, {Name: "decode", Time: at(c.want[4])},
			}
			if diff := cmp.Diff(want, x.findings.Phases); diff != "" {
				t.Error(diff)
			}
		})
	}
}
