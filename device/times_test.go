// SPDX-License-Identifier: Apache-2.0

package device

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window"
)

func TestTimesAddUpToTheExchange(t *testing.T) {
	const never = -1
	for name, c := range map[string]struct {
		started, walk, decode, total int // milliseconds; walk is the guest's word
		want                         window.Times
	}{
		"one part after the other":          {2, 4, 1, 10, window.Times{Wakeup: 2000, Walk: 4000, Transfer: 3000, Decode: 1000}},
		"STARTED is read after the walk":    {94, 4, 1, 95, window.Times{Wakeup: 90000, Walk: 4000, Decode: 1000}},
		"STARTED is read within the walk":   {3, 4, 1, 7, window.Times{Wakeup: 2000, Walk: 4000, Decode: 1000}},
		"no STARTED":                        {never, 4, 1, 10, window.Times{Walk: 4000, Transfer: 5000, Decode: 1000}},
		"a walk longer than the exchange":   {2, 50, 1, 10, window.Times{Walk: 9000, Decode: 1000}},
		"decoding goes on while it is sent": {2, 4, 8, 10, window.Times{Walk: 2000, Decode: 8000}},
	} {
		t.Run(name, func(t *testing.T) {
			at := func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }
			raised := time.Now()
			x := &exchange{
				raised:  raised,
				trailer: protocol.Trailer{WalkUS: uint32(at(c.walk).Microseconds())},
				decode:  at(c.decode),
			}
			if c.started != never {
				x.started = raised.Add(at(c.started))
			}
			if diff := cmp.Diff(c.want, x.times(raised.Add(at(c.total)))); diff != "" {
				t.Error(diff)
			}
		})
	}
}
