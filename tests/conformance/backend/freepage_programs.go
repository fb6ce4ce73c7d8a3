// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"bytes"
	"time"

	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// fpPrograms are the rules of section 9 for the device. What is offered is checked where the
// suite can push a program: with a control socket.
func fpPrograms() []check {
	const source = "spec.md, section 9.4"
	return []check{
		{id: "FBPP-PROG-2", source: source,
			text: "The device sends no event about programs before a HELLO with PROGRAMS and ACCEPTS.",
			run:  fpNoAccepts},
		{id: "FBPP-PROG-4", source: source,
			text: "An event about programs has the nonce of the newest ACCEPTS.", run: fpNonce},
		{id: "FBPP-PROG-6", source: source,
			text: "GET is answered by one DATA with these bytes, or by one GONE.", run: fpGet},
		{id: "FBPP-PROG-9", source: source,
			text: "A device that knows programs has the flag PROGRAMS in its configuration.",
			run:  fpProgramsFlag},
	}
}

// programMachine is a machine whose driver takes programs: its event buffers are larger.
type programMachine struct {
	*freePageMachine
	object []byte // that was pushed; nil: none
	digest protocol.Digest
}

// bootPrograms boots up to a driver that has said HELLO with these features.
func (s *session) bootPrograms(features protocol.Features) *programMachine {
	m := &programMachine{freePageMachine: s.bootFreePage()}
	if s.cfg.ControlPath != "" {
		m.push()
	}
	_ = m.restartEvents()
	for range 4 {
		m.supply(protocol.MinProgramBuffer)
	}
	m.post(helloMessage(protocol.StatusOK, features))
	return m
}

// push makes the device offer a program, until the end of the check.
func (m *programMachine) push() {
	m.object = pattern(5, 1000)
	b, err := bundle.New(protocol.Offer{Kind: protocol.KindWalk, Name: "conformance"}, m.object)
	m.must(err, "make a program")
	m.digest = b.Offer.Digest
	c := control.NewClient(m.cfg.ControlPath)
	_, err = c.PushProgram(m.Context(), b.Encode(), driver.AtNow)
	m.must(err, "push a program")
	m.Cleanup(func() { _, _ = c.WithdrawProgram(m.Context(), m.digest.String()) })
}

// accept sends ACCEPTS.
func (m *programMachine) accept(nonce uint64) {
	a := protocol.Accepts{Kinds: protocol.KindWalk.Mask(), MaxSize: protocol.MaxProgramSize}
	m.postProgram(protocol.MessageAccepts, nonce, protocol.AcceptsSize, a.Encode)
}

func (m *programMachine) get(nonce uint64, d protocol.Digest, offset, length uint32) {
	g := protocol.Get{Digest: d, Offset: offset, Length: length}
	m.postProgram(protocol.MessageGet, nonce, protocol.GetSize, g.Encode)
}

func (m *programMachine) postProgram(
	of protocol.MessageType, nonce uint64, size int, encode func([]byte),
) {
	p := make([]byte, protocol.HeaderSize+size)
	h := protocol.Header{Type: of, Generation: nonce, PageShift: 12}
	h.Encode(p)
	encode(p[protocol.HeaderSize:])
	m.post(p)
}

// program returns the next event about programs within a limit, and supplies another buffer.
func (m *programMachine) program(limit time.Duration) (e protocol.ProgramEvent, ok bool) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		u, ok := m.events.Poll()
		if !ok {
			continue
		}
		addr, known := m.buffers[u.Head]
		if !known || u.Len > protocol.MinProgramBuffer {
			m.Failf("the device used head %d of eventq with %d bytes", u.Head, u.Len)
		}
		p := m.g.Read(addr, uint64(u.Len))
		delete(m.buffers, u.Head)
		m.supply(protocol.MinProgramBuffer)
		if head, err := protocol.DecodeEvent(p); err == nil && !head.Type.IsProgram() {
			continue
		}
		e, err := protocol.DecodeProgramEvent(p)
		if err != nil {
			m.Failf("the device sent an event that cannot be understood: %v", err)
		}
		return e, true
	}
	return e, false
}

// expectProgram waits for an event about programs of that type and session.
func (m *programMachine) expectProgram(of protocol.EventType, nonce uint64) protocol.ProgramEvent {
	e, ok := m.program(m.cfg.Patience)
	if !ok || e.Type != of || e.Nonce != nonce {
		m.Failf("got %v of session %d, wanted %v of session %d", e.Type, e.Nonce, of, nonce)
	}
	return e
}

func (m *programMachine) noProgram(why string) {
	if e, ok := m.program(quiet); ok {
		m.Failf("%s: the device sent %v of session %d", why, e.Type, e.Nonce)
	}
}

func fpProgramsFlag(s *session) {
	m := s.bootFreePage()
	p, err := m.f.GetConfig(0, protocol.ConfigSize)
	s.must(err, "read the configuration")
	c, err := protocol.DecodeConfig(p)
	s.must(err, "read the configuration")
	if c.Flags&protocol.ConfigPrograms == 0 {
		s.Failf("the flags of the configuration are %#x", c.Flags)
	}
}

// begin asks, and waits until the device has raised the request: a message that comes before
// that has no request to end.
func (m *programMachine) begin() {
	m.ask()
	for end := time.Now().Add(m.cfg.Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		u, ok := m.events.Poll()
		if !ok {
			continue
		}
		e, err := protocol.DecodeEvent(m.g.Read(m.buffers[u.Head], uint64(u.Len)))
		delete(m.buffers, u.Head)
		m.supply(protocol.MinProgramBuffer)
		if err == nil && e.Type == protocol.EventReportFree {
			return
		}
	}
	m.Failf("the device did not ask for a report")
}

func fpNoAccepts(s *session) {
	m := s.bootPrograms(protocol.FeaturePrograms)
	m.noProgram("before ACCEPTS")
	m.begin()
	m.accept(0)
	m.expectStatus(fpBadReport, "an ACCEPTS with nonce 0")
	m.noProgram("after an ACCEPTS with nonce 0")
	m.post(helloMessage(protocol.StatusOK, 0))
	m.begin()
	m.accept(1)
	m.expectStatus(fpBadReport, "an ACCEPTS of a driver without PROGRAMS")
	m.noProgram("to a driver without PROGRAMS")
}

// Sessions of the checks.
const firstNonce, secondNonce = 0x1234567800000001, 0x1234567900000001

func fpNonce(s *session) {
	m := s.bootPrograms(protocol.FeaturePrograms)
	for _, nonce := range []uint64{firstNonce, secondNonce} {
		m.accept(nonce)
		if m.object != nil {
			m.expectProgram(protocol.EventOffer, nonce)
		}
		m.get(nonce, protocol.Digest{1}, 0, 1)
		m.expectProgram(protocol.EventGone, nonce)
	}
	m.get(firstNonce, protocol.Digest{1}, 0, 1)
	m.noProgram("after a GET of another session")
}

func fpGet(s *session) {
	m := s.bootPrograms(protocol.FeaturePrograms)
	m.accept(firstNonce)
	if m.object == nil {
		m.get(firstNonce, protocol.Digest{1}, 0, 1)
		m.expectProgram(protocol.EventGone, firstNonce)
		return
	}
	if o := m.expectProgram(protocol.EventOffer, firstNonce).Offer; o.Digest != m.digest ||
		o.Size != uint32(len(m.object)) {
		m.Failf("the device offers %d bytes with the digest %v", o.Size, o.Digest)
	}
	size := uint32(len(m.object))
	for at := uint32(0); at < size; {
		m.get(firstNonce, m.digest, at, size-at)
		e := m.expectProgram(protocol.EventData, firstNonce)
		if e.Digest != m.digest || e.Offset != at || uint32(len(e.Bytes)) > size-at ||
			!bytes.Equal(e.Bytes, m.object[at:][:len(e.Bytes)]) {
			m.Failf("asked from %d on, the device sent %d bytes from %d, or other bytes",
				at, len(e.Bytes), e.Offset)
		}
		at += uint32(len(e.Bytes))
	}
	m.get(firstNonce, m.digest, 0, 1)
	if e := m.expectProgram(protocol.EventData, firstNonce); len(e.Bytes) != 1 {
		m.Failf("asked for 1 byte, the device sent %d", len(e.Bytes))
	}
	for _, past := range []uint32{size, size - 1, protocol.MaxProgramSize - 2} {
		m.get(firstNonce, m.digest, past, 2)
		m.expectProgram(protocol.EventGone, firstNonce)
	}
	m.noProgram("after each GET was answered")
}
