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

// QEMU closes the connection of an fbppd that was stopped for too long. The guest
// may then use the memory of its rings for something else. When fbppd goes on, it
// may still see kicks before it reads the end of the connection. It must not write
// to the rings for them.
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
			if stopped.Load() { // keeps the message goroutine from reading the end
				close(busy)
				<-resume
			}
			return handle(p, f)
		}
	})
	// The event that asks for a HELLO. Its buffer is not supplied again.
	_, err := m.events.Wait(patience)
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
		t.Error("the device wrote to the rings of a frontend that is gone")
	}
	close(resume)
}
