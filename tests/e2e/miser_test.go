// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// generosity is how many requests for parts of an object a miser lets pass, one by one. With
// each, those pass that the agent has sent meanwhile: it has at most six open.
const generosity = 3

// miser is the device in the test's own process. It delivers the first parts of an object only: a
// device that has no buffer does not answer either [FBPP-PROG-6].
type miser struct {
	socket   string
	device   *device.Device
	passed   int          // on the goroutine of the queue
	withheld atomic.Int64 // requests that were not answered
}

func startMiser(t *testing.T) *miser {
	t.Helper()
	d := device.New(device.Options{Source: device.PolicyGuest})
	m := &miser{socket: filepath.Join(t.TempDir(), "miser.sock"), device: d}
	served := d.VhostUser()
	honest := served.Kick
	served.Kick = func(q *vhostuser.Queue) {
		if q.Index() == protocol.ReportQueue {
			m.withhold(q)
		}
		honest(q)
	}
	serve(t, m.socket, served)
	return m
}

// withhold takes requests for parts out of the queue, up to the first other message.
func (m *miser) withhold(q *vhostuser.Queue) {
	for {
		c, err := q.Pop()
		if c == nil || err != nil {
			return
		}
		var head [protocol.HeaderSize]byte
		_, _ = c.ReadAt(head[:], 0) // of a shorter message the device complains
		h, err := protocol.DecodeHeader(head[:])
		if err != nil || h.Type != protocol.MessageGet || m.passed < generosity {
			if h.Type == protocol.MessageGet {
				m.passed++
			}
			_ = q.Unpop(c) // as below: then the queue has stopped
			return
		}
		m.withheld.Add(1)
		if q.Push(c, 0) != nil || q.Notify() != nil {
			return
		}
	}
}

// push offers a program, and waits until the guest has a part of it, and lacks another.
func (m *miser) push(t *testing.T, b *bundle.Bundle) {
	t.Helper()
	if err := m.device.PushProgram(b.Encode(), driver.AtNow); err != nil {
		t.Fatal(err)
	}
	for m.withheld.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	m.requireFetching(t, b)
}

// requireFetching fails if the guest is done with the program.
func (m *miser) requireFetching(t *testing.T, b *bundle.Bundle) {
	t.Helper()
	for _, p := range m.device.Status().Programs {
		if p.Digest != b.Offer.Digest.String() || p.State != "fetching" {
			t.Fatalf("the program is %+v, want it fetching", p)
		}
	}
}
