// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

const testNonce = 4711

// programBuffer is the length of the event buffers of a driver that takes programs.
const programBuffer = 1024

// mustProgram returns the file of a program whose object has n bytes.
func mustProgram(t testing.TB, version uint64, n int) (*bundle.Bundle, []byte) {
	t.Helper()
	object := bytes.Repeat([]byte{byte(version)}, n)
	b, err := bundle.New(protocol.Offer{Kind: protocol.KindWalk, Version: version, Name: "w"}, object)
	if err != nil {
		t.Fatal(err)
	}
	return b, b.Encode()
}

// takePrograms plays a driver that takes programs, up to its ACCEPTS.
func (m *machine) takePrograms(status protocol.Status) {
	m.t.Helper()
	m.expectEvent(protocol.EventChanged)
	m.must(m.fe.Stop(m.events))
	m.events.Reset()
	clear(m.buffers)
	m.must(m.fe.StartRing(m.events))
	m.must(m.fe.Enable(m.events, true))
	for range 4 {
		m.supply(programBuffer)
	}
	m.must(m.events.Kick.Raise())
	if e := m.programEvent(); e.Type != protocol.EventChanged {
		m.t.Fatalf("the first event is %v", e.Type)
	}
	m.post(helloMessage(status, protocol.FeaturePrograms))
	m.accept(protocol.KindWalk.Mask(), 1<<16)
}

func (m *machine) accept(kinds, size uint32) {
	m.t.Helper()
	a := protocol.Accepts{Kinds: kinds, MaxSize: size}
	m.post(programMessage(protocol.MessageAccepts, testNonce, protocol.AcceptsSize, a.Encode))
}

func programMessage(
	of protocol.MessageType, nonce uint64, size int, encode func([]byte),
) []byte {
	p := make([]byte, protocol.HeaderSize+size)
	h := protocol.Header{Type: of, Generation: nonce, PageShift: 12}
	h.Encode(p)
	encode(p[protocol.HeaderSize:])
	return p
}

func (m *machine) get(d protocol.Digest, offset, length uint32) {
	m.t.Helper()
	g := protocol.Get{Digest: d, Offset: offset, Length: length}
	m.post(programMessage(protocol.MessageGet, testNonce, protocol.GetSize, g.Encode))
}

func (m *machine) tell(b *bundle.Bundle, state protocol.ProgramState, reason string) {
	m.t.Helper()
	r := protocol.ProgramReport{
		Digest: b.Offer.Digest, Kind: b.Offer.Kind, Version: b.Offer.Version,
		State: state, Reason: reason, Log: "line one\nline two",
	}
	m.post(programMessage(protocol.MessageProgram, testNonce, protocol.ProgramReportSize, r.Encode))
}

// programEvent waits for the next event, of any length, and supplies another buffer.
func (m *machine) programEvent() protocol.ProgramEvent {
	m.t.Helper()
	used, err := m.events.Wait(patience)
	m.must(err)
	p := m.guest.Read(m.buffers[used.Head], uint64(used.Len))
	delete(m.buffers, used.Head)
	m.supply(programBuffer)
	m.must(m.events.Kick.Raise())
	if e, err := protocol.DecodeEvent(p); err == nil && !e.Type.IsProgram() {
		if used.Len != protocol.EventSize {
			m.t.Fatalf("%v has %d bytes", e, used.Len)
		}
		return protocol.ProgramEvent{Type: e.Type, Nonce: e.Generation}
	}
	e, err := protocol.DecodeProgramEvent(p)
	m.must(err)
	if e.Nonce != testNonce {
		m.t.Fatalf("%v has the nonce %d", e.Type, e.Nonce)
	}
	return e
}

func (m *machine) expectProgramEvent(want protocol.EventType) protocol.ProgramEvent {
	m.t.Helper()
	e := m.programEvent()
	if e.Type != want {
		m.t.Fatalf("event %v, want %v", e.Type, want)
	}
	return e
}

// fetch plays a driver that takes what it is offered, to the last byte.
func (m *machine) fetch(o protocol.Offer) []byte {
	m.t.Helper()
	var object []byte
	for len(object) < int(o.Size) {
		at := uint32(len(object))
		m.get(o.Digest, at, o.Size-at)
		e := m.expectProgramEvent(protocol.EventData)
		if e.Offset != at || e.Digest != o.Digest || len(e.Bytes) > programBuffer {
			m.t.Fatalf("%d bytes came from %d, wanted from %d", len(e.Bytes), e.Offset, at)
		}
		object = append(object, e.Bytes...)
	}
	return object
}

func TestPushedProgramIsFetchedAndRenewed(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.takePrograms(protocol.StatusOK)
	var older *bundle.Bundle
	for version := uint64(1); version < 4; version++ {
		b, file := mustProgram(t, version, 5000)
		m.must(m.dev.PushProgram(file, driver.AtNow))
		e := m.expectProgramEvent(protocol.EventOffer)
		if e.Offer != b.Offer {
			t.Fatalf("offered %+v, want %+v", e.Offer, b.Offer)
		}
		if got := m.fetch(e.Offer); !bytes.Equal(got, b.Object) {
			t.Fatal("the object is another one")
		}
		m.tell(b, protocol.ProgramActive, "")
		if older != nil {
			m.tell(older, protocol.ProgramWithdrawn, "replaced")
		}
		all := m.dev.Status().Programs
		if all[0].State != "active" || all[0].Version != version || all[0].At != driver.AtNow {
			t.Fatalf("version %d: status says %+v", version, all)
		}
		if older != nil && (all[len(all)-1].State != "withdrawn" || all[len(all)-1].At != "") {
			t.Fatalf("version %d: status says %+v", version, all)
		}
		older = b
	}
	m.must(m.dev.WithdrawProgram(older.Offer.Digest.String()))
	if e := m.expectProgramEvent(protocol.EventWithdraw); e.Digest != older.Offer.Digest {
		t.Fatalf("withdraws %v", e.Digest)
	}
	m.get(older.Offer.Digest, 0, 10)
	m.expectProgramEvent(protocol.EventGone)
	err := m.dev.WithdrawProgram(protocol.Digest{1}.String())
	if !errors.Is(err, driver.ErrNoProgram) {
		t.Fatalf("withdraw what there is not: %v", err)
	}
}

func TestReasonOfTheGuestIsShown(t *testing.T) {
	m := mustBoot(t, device.Options{})
	b, file := mustProgram(t, 1, 100)
	m.must(m.dev.PushProgram(file, driver.AtNow)) // before there is a driver
	m.takePrograms(protocol.StatusOK)
	m.expectProgramEvent(protocol.EventOffer)
	m.tell(b, protocol.ProgramRefused, "no key of it")
	p := m.dev.Status().Programs[0]
	if p.State != "refused" || p.Reason != "no key of it" || p.Log != "line one\nline two" {
		t.Fatalf("status says %+v", p)
	}
}

func TestOfferThatTheGuestCannotTakeIsNotMade(t *testing.T) {
	for name, a := range map[string]protocol.Accepts{
		"another kind": {Kinds: 4, MaxSize: 1 << 20},
		"a small one":  {Kinds: protocol.KindWalk.Mask(), MaxSize: 99},
	} {
		t.Run(name, func(t *testing.T) {
			m := mustBoot(t, device.Options{})
			m.takePrograms(protocol.StatusOK)
			m.accept(a.Kinds, a.MaxSize)
			_, file := mustProgram(t, 1, 100)
			m.must(m.dev.PushProgram(file, driver.AtNow))
			if p := m.dev.Status().Programs[0]; p.State != "refused" || p.Reason == "" {
				t.Fatalf("status says %+v", p)
			}
			m.exchangeOf(protocol.EventReportFree)
		})
	}
}

// exchangeOf runs a request whose next event has to be of that type.
func (m *machine) exchangeOf(want protocol.EventType) {
	m.t.Helper()
	m.request(patience)
	e := m.expectProgramEvent(want)
	m.post(last(e.Nonce, protocol.MakeRecord(512, 9)))
	if status, _ := m.answer(); status != protocol.AnswerOK {
		m.t.Fatalf("the request ended with %v: %+v", status, m.dev.Status().Last)
	}
}

// A guest without a program is made ready within the request.
func TestProgramIsInjectedAtMigration(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.takePrograms(protocol.StatusUnsupported)
	m.request(patience)
	m.expect(protocol.AnswerRefused)
	b, file := mustProgram(t, 1, 3000)
	m.must(m.dev.PushProgram(file, driver.AtMigration))
	m.request(patience)
	m.fetch(m.expectProgramEvent(protocol.EventOffer).Offer)
	m.post(helloMessage(protocol.StatusOK, protocol.FeaturePrograms))
	m.tell(b, protocol.ProgramActive, "")
	e := m.expectProgramEvent(protocol.EventReportFree)
	m.post(last(e.Nonce, protocol.MakeRecord(512, 9)))
	if status, _ := m.answer(); status != protocol.AnswerOK {
		t.Fatalf("the request ended with %v", status)
	}
	if x := m.dev.Status().Last; x.Phases[0].Name != "inject" || x.Phases[0].Microseconds == 0 {
		t.Fatalf("the phases are %+v", x.Phases)
	}
	m.exchangeOf(protocol.EventReportFree) // it is in use: nothing is offered again
}

// What does not end in time, or is refused, does not keep the driver from being asked.
func TestInjectionThatFailsIsNotWaitedFor(t *testing.T) {
	t.Run("the driver says nothing more", func(t *testing.T) {
		m := mustBoot(t, device.Options{})
		m.takePrograms(protocol.StatusOK)
		b, file := mustProgram(t, 1, 3000)
		m.must(m.dev.PushProgram(file, driver.AtMigration))
		m.request(4 * time.Second)
		m.expectProgramEvent(protocol.EventOffer)
		m.tell(b, protocol.ProgramLoading, "") // or it would be given up as silent
		e := m.expectProgramEvent(protocol.EventReportFree)
		m.post(last(e.Nonce, protocol.MakeRecord(512, 9)))
		if status, _ := m.answer(); status != protocol.AnswerOK {
			t.Fatalf("the request ended with %v", status)
		}
	})
	t.Run("the driver refuses", func(t *testing.T) {
		m := mustBoot(t, device.Options{})
		m.takePrograms(protocol.StatusOK)
		b, file := mustProgram(t, 1, 3000)
		m.must(m.dev.PushProgram(file, driver.AtMigration))
		m.request(patience)
		m.expectProgramEvent(protocol.EventOffer)
		m.tell(b, protocol.ProgramRefused, "no")
		e := m.expectProgramEvent(protocol.EventReportFree)
		m.post(last(e.Nonce, protocol.MakeRecord(512, 9)))
		if status, _ := m.answer(); status != protocol.AnswerOK {
			t.Fatalf("the request ended with %v", status)
		}
	})
}

// A driver that said ACCEPTS to another process says it again to this one, and names what
// is in use.
func TestProgramsOutliveAReconnect(t *testing.T) {
	m := mustBoot(t, device.Options{})
	b, file := mustProgram(t, 1, 3000)
	m.must(m.dev.PushProgram(file, driver.AtNow))
	m.takePrograms(protocol.StatusOK)
	m.expectProgramEvent(protocol.EventOffer)
	m.tell(b, protocol.ProgramLoading, "")
	other, _ := mustProgram(t, 9, 10)
	m.tell(other, protocol.ProgramActive, "") // of the host before
	m.greetAgain()
	m.expectProgramEvent(protocol.EventOffer)
	all := m.dev.Status().Programs
	if len(all) != 1 || all[0].State != "offered" {
		t.Fatalf("status says %+v", all)
	}
	m.tell(other, protocol.ProgramActive, "")
	if all = m.dev.Status().Programs; len(all) != 2 || all[1].Version != 9 {
		t.Fatalf("status says %+v", all)
	}
	m.must(m.dev.WithdrawProgram(other.Offer.Digest.String()))
	m.expectProgramEvent(protocol.EventWithdraw)
}

// greetAgain restarts eventq, as a reconnect does, and says HELLO and ACCEPTS again.
func (m *machine) greetAgain() {
	m.t.Helper()
	m.must(m.fe.Stop(m.events))
	m.comeBack()
}

// comeBack starts eventq after a stop, and says HELLO and ACCEPTS.
func (m *machine) comeBack() {
	m.t.Helper()
	m.must(m.fe.StartRing(m.events))
	m.must(m.fe.Enable(m.events, true))
	m.must(m.events.Kick.Raise())
	m.expectProgramEvent(protocol.EventChanged)
	m.post(helloMessage(protocol.StatusOK, protocol.FeaturePrograms))
	m.accept(protocol.KindWalk.Mask(), 1<<16)
}

// Nothing about programs is sent to a driver that does not take them, and what it sends
// about them is malformed.
func TestDriverThatTakesNoPrograms(t *testing.T) {
	m := mustBoot(t, device.Options{})
	_, file := mustProgram(t, 1, 3000)
	m.must(m.dev.PushProgram(file, driver.AtNow))
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()
	m.request(patience)
	m.expectEvent(protocol.EventReportFree)
	m.accept(protocol.KindWalk.Mask(), 1<<16)
	m.expect(protocol.AnswerBadReport)
	m.expectEvent(protocol.EventCancel)
	m.mustExchange()
}

// Every migration would wait for it.
func TestCensusIsNotPushedForMigrations(t *testing.T) {
	d := device.New(device.Options{})
	b, err := bundle.New(protocol.Offer{Kind: protocol.KindCensus, Name: "census"}, []byte("object"))
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[driver.When]error{
		driver.AtMigration: device.ErrNoWalkAtMigration, driver.AtNow: nil,
	} {
		if err := d.PushProgram(b.Encode(), at); !errors.Is(err, want) {
			t.Errorf("at %q: %v, want %v", at, err, want)
		}
	}
}

func TestFileThatIsNoProgramIsNotPushed(t *testing.T) {
	d := device.New(device.Options{})
	_, file := mustProgram(t, 1, 100)
	for _, p := range [][]byte{nil, file[:50], file[:len(file)-1], slices.Concat(file, file)} {
		if err := d.PushProgram(p, driver.AtNow); err == nil {
			t.Errorf("%d bytes were pushed", len(p))
		}
	}
	if all := d.Status().Programs; len(all) > 0 {
		t.Errorf("status says %+v", all)
	}
}
