// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/window"
	"github.com/fbpp-project/fbpp/device/wire"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

func TestRefusalOfAGuestThatCannotReachTheDevice(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.expectEvent(wire.EventChanged) // a hello is wanted
	m.must(m.fe.Stop(m.events, m.report))
	header := wire.Header{Type: wire.MessageHello, Status: wire.StatusLockdown, PageShift: 12}
	m.must(m.dev.Refuse(header, wire.Hello{Reason: "lockdown"}))
	m.request(patience)
	m.expect(window.StatusRefused)
	if s := m.dev.Status(); s.DriverState != "refuses" || !strings.Contains(s.Last.Why, "lockdown") {
		t.Errorf("status says %q, %q", s.DriverState, s.Last.Why)
	}
	header.Status = wire.StatusOK
	if err := m.dev.Refuse(header, wire.Hello{}); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("a refusal that refuses nothing: %v", err)
	}
	for _, q := range []*vhosttest.Queue{m.events, m.report} {
		m.must(m.fe.StartRing(q))
		m.must(m.fe.Enable(q, true))
	}
	m.request(patience) // whoever drives the queues now is another one
	m.expect(window.StatusNoDriver)
	m.must(m.events.Kick.Raise())
	m.hello(wire.StatusOK, 0)
	m.mustExchange()

	header.Status = wire.StatusLockdown
	m.must(m.dev.Refuse(header, wire.Hello{}))
	changed := m.dev.Changed()
	m.fe.Close()
	<-changed
	if s := m.dev.Status(); s.DriverState != "none" {
		t.Errorf("status says %q after the frontend went", s.DriverState)
	}
}
