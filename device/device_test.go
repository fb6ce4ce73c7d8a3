// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

func TestTheOperatorSwitchesTheDeviceOffAndOn(t *testing.T) {
	m := mustBoot(t, device.Options{Disabled: true})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	m.expect(protocol.AnswerDisabled)

	enabled := func() bool {
		p, err := m.fe.GetConfig(0, protocol.ConfigSize)
		m.must(err)
		c, err := protocol.DecodeConfig(p)
		m.must(err)
		return c.Flags&protocol.ConfigEnabled != 0
	}
	if enabled() {
		t.Error("config space says enabled")
	}
	m.dev.SetEnabled(true)
	msg, err := m.fe.Channel.Next(patience)
	m.must(err)
	msg.Close()
	if !enabled() {
		t.Error("config space says disabled")
	}
	m.mustExchange()

	m.request(patience)
	m.expectEvent(protocol.EventReportFree)
	m.dev.SetEnabled(false) // in the middle
	m.expect(protocol.AnswerDisabled)
	m.expectEvent(protocol.EventCancel)
}

func TestConfigSpaceIsBounded(t *testing.T) {
	m := mustBoot(t, device.Options{HoldBudget: 3 * time.Millisecond, HoldEntries: 5})
	if _, err := m.fe.GetConfig(protocol.ConfigSize-1, 2); err == nil {
		t.Error("a read past the end was answered")
	}
	m.must(m.fe.SetConfig(0, make([]byte, 8)))
	p, err := m.fe.GetConfig(0, protocol.ConfigSize)
	m.must(err)
	c, err := protocol.DecodeConfig(p)
	m.must(err)
	want := protocol.Config{
		Flags: protocol.ConfigEnabled | protocol.ConfigPrograms, BudgetUS: 3000, BudgetEntries: 5,
	}
	if c != want {
		t.Errorf("config is %+v after a write that must be ignored, want %+v", c, want)
	}
}

func TestStoppingTheQueuesEndsTheRequest(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	m.expectEvent(protocol.EventReportFree)
	m.must(m.fe.Stop(m.events, m.report))
	m.expect(protocol.AnswerNoDriver)
	for _, q := range []*vhosttest.Queue{m.events, m.report} {
		m.must(m.fe.StartRing(q))
		m.must(m.fe.Enable(q, true))
	}
	m.request(patience) // the queues have run, but no HELLO came since
	m.expect(protocol.AnswerNoDriver)
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()
}

func TestALostFrontendLeavesTheDeviceUsable(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	m.expectEvent(protocol.EventReportFree)
	m.fe.Close()

	m.connect() // another QEMU, another guest
	if s := m.dev.Status(); s.Driver != nil {
		t.Errorf("the new guest inherits the driver %+v", s.Driver)
	}
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()
}

func TestAReconnectAsksForHelloWithoutAReset(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()
	m.fe.Close()
	m.events.Resume()
	m.report.Resume()
	m.attach()
	if e := m.expectEvent(protocol.EventChanged); e.Flags != protocol.EventHelloWanted {
		t.Fatalf("event %v, want HELLO_WANTED", e)
	}
	m.post(helloMessage(protocol.StatusOK, 0))
	m.mustExchange()
}
