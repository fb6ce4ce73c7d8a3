// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"os"
	"sync/atomic"
	"testing"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window/windowtest"
	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// QEMU gives up an fbppd that was stopped for too long, and the guest may use the
// memory of its rings for something else. When fbppd goes on, it has kicks to look
// at and messages to read before it meets the end of the connection: it leaves the
// rings alone.
func TestRingsAreLeftAloneOnceTheFrontendIsGone(t *testing.T) {
	var stopped atomic.Bool
	busy, resume := make(chan struct{}), make(chan struct{})
	kicked := make(chan struct{}, 16)
	m := mustBootAs(t, device.Options{}, func(d *vhostuser.Device) {
		kick, handle := d.Kick, d.Extensions[0].Handle
		d.Kick = func(q *vhostuser.Queue) {
			kick(q)
			if stopped.Load() {
				kicked <- struct{}{}
			}
		}
		d.Extensions[0].Handle = func(p []byte, f []*os.File) ([]byte, []int, error) {
			if stopped.Load() { // the message goroutine does not get to the end
				close(busy)
				<-resume
			}
			return handle(p, f)
		}
	})
	_, err := m.events.Wait(patience) // for a HELLO; its buffer is not given again
	m.must(err)
	stopped.Store(true)
	m.must(m.fe.Send(protocol.WindowRequest, 0,
		windowtest.Request(protocol.WindowFeatureOutcome)))
	<-busy
	m.fe.Close()
	_, err = m.report.Add(vhosttest.Buffer{Addr: m.scratch, Len: 4096})
	m.must(err)
	before := []uint16{m.events.UsedIdx(), m.report.UsedIdx()}
	for _, q := range []*vhosttest.Queue{m.report, m.events} {
		m.must(q.Kick.Raise())
		<-kicked
	}
	if m.dev.SetEnabled(false); m.events.UsedIdx() != before[0] || m.report.UsedIdx() != before[1] {
		t.Error("the device has written to rings that are its no more")
	}
	close(resume)
}
