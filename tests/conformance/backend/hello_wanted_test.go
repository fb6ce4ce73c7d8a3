// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// A device has to ask for a HELLO at some starts of eventq. It keeps the rules if it asks
// only at these, and breaks them if it asks only at the others.
func TestHelloThatIsWanted(t *testing.T) {
	for _, tc := range []struct {
		name   string
		silent func(start int64) bool // whether it does not ask at this start of eventq, from 1
		rules  string
		want   report.Outcome
	}{
		{"a device that has just started waits for a HELLO",
			func(n int64) bool { return n == 1 }, "FBPP-*", report.Pass},
		{"a device that has forgotten its driver waits for a HELLO",
			func(n int64) bool { return n > 1 }, "FBPP-INIT-4", report.Fail},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := serve(t, silentIn(tc.silent))
			c := backend.Config{
				SocketPath: path, Profile: backend.FreePage(), Patience: patienceFor(tc.want),
			}
			for id, r := range results(t, c, tc.rules) {
				if r.Outcome != tc.want && r.Outcome != report.Skip {
					t.Errorf("%s: %v %s", id, r.Outcome, r.Detail)
				}
			}
		})
	}
}

// silentIn returns a free page device that does not ask for a HELLO at some starts of
// eventq. silent selects them.
func silentIn(silent func(start int64) bool) *vhostuser.Device {
	d := device.New(device.Options{Logger: zap.NewNop(), WindowSize: 1 << 16}).VhostUser()
	var starts atomic.Int64
	disconnected, started, kick := d.Disconnected, d.QueueStarted, d.Kick
	d.Disconnected = func(b *vhostuser.Backend, err error) {
		starts.Store(0)
		disconnected(b, err)
	}
	d.QueueStarted = func(q *vhostuser.Queue) {
		if q.Index() == protocol.EventQueue {
			starts.Add(1)
		}
		started(q)
	}
	d.Kick = func(q *vhostuser.Queue) {
		if q.Index() != protocol.EventQueue || !silent(starts.Load()) {
			kick(q)
		}
	}
	return d
}
