// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

func TestNoDriver(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.expectEvent(protocol.EventChanged)
	m.request(patience)
	m.expect(protocol.AnswerNoDriver)
}

func TestRequestWithoutAnEventBufferTimesOut(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.useUpBuffers()
	m.request(patience)
	m.expect(protocol.AnswerDriverTimeout)
}

func TestAShortEventBufferIsSkipped(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.useUpBuffers()
	m.supply(protocol.EventSize - 1)
	m.supply(protocol.EventSize)
	m.request(patience)
	for _, want := range []uint32{0, protocol.EventSize} {
		if used, err := m.events.Wait(patience); err != nil || used.Len != want {
			t.Fatalf("buffer was used with %d bytes, %v; want %d", used.Len, err, want)
		}
	}
}

// useUpBuffers makes the device use the four event buffers, and supplies no others.
func (m *machine) useUpBuffers() {
	m.t.Helper()
	for range 2 { // a request and its cancel
		m.request(patience)
		_, err := m.events.Wait(patience)
		m.must(err)
		m.cancel()
		m.expect(protocol.AnswerCancelled)
		_, err = m.events.Wait(patience)
		m.must(err)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name     string
		status   protocol.Status
		features protocol.Features
	}{
		{"the driver says that contents matter",
			protocol.StatusContentMatters, protocol.FeaturePagePoison},
		{"the driver is willing, but the guest poisons free pages",
			protocol.StatusOK, protocol.FeaturePagePoison},
		{"a kernel under lockdown", protocol.StatusLockdown, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := mustBoot(t, device.Options{})
			m.hello(tc.status, tc.features)
			m.request(patience)
			m.expect(protocol.AnswerRefused)
			if s := m.dev.Status(); s.DriverState != "refuses" || s.Last.Why == "" {
				t.Errorf("status says %q, %q", s.DriverState, s.Last.Why)
			}
			m.post(helloMessage(protocol.StatusOK, protocol.FeatureInitOnFree)) // a later HELLO replaces it
			m.mustExchange()
		})
	}
}

func TestRefusalOfAGuestThatCannotReachTheDevice(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.expectEvent(protocol.EventChanged) // a hello is wanted
	m.must(m.fe.Stop(m.events, m.report))
	port := m.plug()
	refuse := func() {
		_, err := port.Write(helloMessage(protocol.StatusLockdown, 0))
		m.must(err)
		m.awaitDriver("refuses")
	}
	refuse()
	m.request(patience)
	m.expect(protocol.AnswerRefused)
	if s := m.dev.Status(); s.DriverState != "refuses" || !strings.Contains(s.Last.Why, "a reason") {
		t.Errorf("status says %q, %q", s.DriverState, s.Last.Why)
	}
	for _, q := range []*vhosttest.Queue{m.events, m.report} {
		m.must(m.fe.StartRing(q))
		m.must(m.fe.Enable(q, true))
	}
	m.request(patience) // the queues now belong to another driver
	m.expect(protocol.AnswerNoDriver)
	m.must(m.events.Kick.Raise())
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()

	m.must(m.fe.Stop(m.events, m.report)) // else that driver stays [FBPP-PORT-7]
	refuse()
	m.fe.Close()
	m.mustDisconnect()
	if s := m.dev.Status(); s.DriverState != "none" {
		t.Errorf("status says %q after the frontend went", s.DriverState)
	}
}
