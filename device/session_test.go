// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// A transfer leaves a buffer for REPORT_FREE.
func TestDataLeavesABuffer(t *testing.T) {
	m := mustBoot(t, device.Options{})
	b, file := mustProgram(t, 1, 9000)
	m.takePrograms(protocol.StatusOK)
	m.must(m.dev.PushProgram(file, driver.AtNow))
	m.expectProgramEvent(protocol.EventOffer)
	buffers := len(m.buffers)
	for at := range buffers { // one more than may be answered
		m.get(b.Offer.Digest, uint32(at), 1)
	}
	for at := range buffers - 1 {
		used, err := m.events.Wait(patience)
		m.must(err)
		e, err := protocol.DecodeProgramEvent(m.guest.Read(m.buffers[used.Head], uint64(used.Len)))
		if err != nil || e.Type != protocol.EventData || e.Offset != uint32(at) {
			t.Fatalf("event %d is %v from %d, %v", at, e.Type, e.Offset, err)
		}
		delete(m.buffers, used.Head)
	}
	m.request(patience)
	e := m.programEvent()
	if e.Type != protocol.EventReportFree {
		t.Fatalf("the last buffer has %v", e.Type)
	}
	m.post(last(e.Nonce, protocol.MakeRecord(512, 9)))
	if status, _ := m.answer(); status != protocol.AnswerOK {
		t.Fatalf("the request ended with %v", status)
	}
}

// A migration that is given up while a program is offered asks the driver nothing more.
func TestCancelledInjectionAsksNothing(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.takePrograms(protocol.StatusOK)
	_, file := mustProgram(t, 1, 3000)
	m.must(m.dev.PushProgram(file, driver.AtMigration))
	for range 2 { // the next event after the first is the second's
		m.request(patience)
		m.expectProgramEvent(protocol.EventOffer)
		m.cancel()
		m.expect(protocol.AnswerCancelled)
	}
}

// What the guest says of a program of this host does not change what the host says of it.
func TestGuestDoesNotRenameAProgram(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.takePrograms(protocol.StatusOK)
	b, file := mustProgram(t, 5, 100)
	m.must(m.dev.PushProgram(file, driver.AtNow))
	m.expectProgramEvent(protocol.EventOffer)
	lie := *b
	lie.Offer.Kind, lie.Offer.Version = 7, 9
	m.tell(&lie, protocol.ProgramActive, "")
	p := m.dev.Status().Programs[0]
	if p.State != "active" || p.Kind != "walk" || p.Version != 5 {
		t.Fatalf("status says %+v", p)
	}
}

// A message of a session with another process is no fault of the driver.
func TestMessageAboutProgramsBeforeHelloIsStale(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	m := mustBoot(t, device.Options{Logger: zap.New(core)})
	m.get(protocol.Digest{1}, 0, 1)
	b, _ := mustProgram(t, 1, 100)
	m.tell(b, protocol.ProgramActive, "")
	if all := logs.All(); len(all) > 0 || len(m.dev.Status().Programs) > 0 {
		t.Errorf("%+v; status says %+v", all, m.dev.Status().Programs)
	}
}

// A withdrawal is not lost with a session: the guest is told when it is back, and each time
// it names the program as in use.
func TestWithdrawalOutlivesAReconnect(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.takePrograms(protocol.StatusOK)
	b, file := mustProgram(t, 1, 100)
	m.must(m.dev.PushProgram(file, driver.AtNow))
	m.expectProgramEvent(protocol.EventOffer)
	m.tell(b, protocol.ProgramActive, "")
	m.must(m.fe.Stop(m.events))
	for range 2 { // an operator may try again
		m.must(m.dev.WithdrawProgram(b.Offer.Digest.String()))
		all := m.dev.Status().Programs
		if len(all) != 1 || !all[0].WithdrawalPending || all[0].Name != "w" || all[0].At != "" {
			t.Fatalf("status says %+v", all)
		}
	}
	m.comeBack()
	expect := func() {
		t.Helper()
		if e := m.expectProgramEvent(protocol.EventWithdraw); e.Digest != b.Offer.Digest {
			t.Fatalf("withdraws %v", e.Digest)
		}
	}
	expect()
	m.tell(b, protocol.ProgramActive, "") // sent before WITHDRAW came
	expect()
	m.tell(b, protocol.ProgramWithdrawn, "")
	if p := m.dev.Status().Programs[0]; p.WithdrawalPending || p.State != "withdrawn" {
		t.Fatalf("status says %+v", p)
	}
	m.greetAgain()
	if all := m.dev.Status().Programs; len(all) > 0 {
		t.Fatalf("status says %+v", all)
	}
	m.tell(b, protocol.ProgramActive, "") // the guest was restored from a snapshot
	expect()
	m.must(m.dev.PushProgram(file, driver.AtNow))
	m.expectProgramEvent(protocol.EventOffer)
	m.tell(b, protocol.ProgramActive, "")
	if all := m.dev.Status().Programs; len(all) != 1 || all[0].WithdrawalPending {
		t.Fatalf("status says %+v", all)
	}
	m.exchangeOf(protocol.EventReportFree)
}
