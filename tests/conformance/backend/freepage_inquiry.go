// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"

	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// inquiry is a question that a program of the host answers: a census or a sample. The rules about
// both are alike, and one is open at a time, of either kind.
type inquiry struct {
	name   string // of what is found
	kind   protocol.ProgramKind
	event  protocol.EventType // that asks
	digest protocol.Digest    // of the program that the driver of these checks has in use

	// ask asks by the control socket, and returns how many pages were found.
	ask func(ctx context.Context, c *control.Client) (pages uint64, err error)

	// part sends a part of an answer, and end the rest. nil: the answer has no parts.
	part, end func(m *inquiryMachine, d protocol.Digest, number, pages uint64)
}

// answer sends all of an answer that has found so many pages.
func (q *inquiry) answer(m *inquiryMachine, d protocol.Digest, number, pages uint64) {
	if q.part != nil {
		q.part(m, d, number, pages)
	}
	q.end(m, d, number, pages)
}

// found is what came of an inquiry.
type found struct {
	pages uint64
	err   error
}

// inquiryMachine is a machine whose driver takes programs of all kinds.
type inquiryMachine struct {
	*programMachine
	nonce uint64 // of the messages of the driver
}

// bootInquiry boots up to a driver whose session has no program in use.
func (s *session) bootInquiry() *inquiryMachine {
	s.need(s.cfg.ControlPath != "", "needs a way to ask the guest (--control-path)")
	m := &inquiryMachine{programMachine: s.bootPrograms(protocol.FeaturePrograms)}
	m.join(firstNonce)
	return m
}

// join begins a session.
func (m *inquiryMachine) join(nonce uint64) {
	m.nonce = nonce
	a := protocol.Accepts{MaxSize: protocol.MaxProgramSize}
	for _, kind := range protocol.Kinds() {
		a.Kinds |= kind.Mask()
	}
	m.postProgram(protocol.MessageAccepts, nonce, protocol.AcceptsSize, a.Encode)
	m.expectProgram(protocol.EventOffer, nonce)
}

// elsewhere has the driver send messages of another session.
func (m *inquiryMachine) elsewhere(nonce uint64, send func()) {
	here := m.nonce
	m.nonce = nonce
	send()
	m.nonce = here
}

// report says what has become of the program of an inquiry.
func (m *inquiryMachine) report(q *inquiry, state protocol.ProgramState) {
	r := protocol.ProgramReport{Digest: q.digest, Kind: q.kind, State: state}
	m.postProgram(protocol.MessageProgram, m.nonce, protocol.ProgramReportSize, r.Encode)
}

// settle waits until the device knows what the driver has said.
func (m *inquiryMachine) settle() {
	m.get(m.nonce, protocol.Digest{1}, 0, 1)
	m.expectProgram(protocol.EventGone, m.nonce)
}

// take asks by the control socket, and returns at once.
func (m *inquiryMachine) take(q *inquiry) <-chan found {
	result := make(chan found, 1)
	c, ctx := control.NewClient(m.cfg.ControlPath), m.Context()
	go func() {
		pages, err := q.ask(ctx, c)
		result <- found{pages, err}
	}()
	return result
}

// open asks, and returns the event that does.
func (m *inquiryMachine) open(q *inquiry) (<-chan found, protocol.ProgramEvent) {
	result := m.take(q)
	e := m.expectProgram(q.event, m.nonce)
	if e.Digest != q.digest {
		m.Failf("%v names the program %v, which is no %v in use", q.event, e.Digest, q.kind)
	}
	return result, e
}

// finds checks the result of an inquiry that was answered well.
func (m *inquiryMachine) finds(q *inquiry, result <-chan found, pages uint64) {
	r := <-result
	if r.err != nil {
		m.Failf("after a good answer: %v", r.err)
	}
	if r.pages != pages {
		m.Failf("the %s is of %d pages, and the answer was of %d", q.name, r.pages, pages)
	}
}

// refuses checks that the device does not ask a guest that has said what it has.
func (m *inquiryMachine) refuses(q *inquiry, of string) {
	m.settle()
	m.refused(q, of)
}

// refused checks that the device does not ask. It leaves the event buffers alone.
func (m *inquiryMachine) refused(q *inquiry, of string) {
	if r := <-m.take(q); r.err == nil {
		m.Failf("there is a %s of a guest %s", q.name, of)
	}
	m.noProgram("of a guest " + of)
}

// starve leaves the device one event buffer.
func (m *inquiryMachine) starve() {
	for len(m.buffers) > 1 {
		m.get(m.nonce, protocol.Digest{1}, 0, 1)
		delete(m.buffers, m.wait().Head)
	}
}

// fpInquires is about when the device may ask [FBPP-CEN-1, FBPP-SMP-1]. other is the other kind.
func fpInquires(q, other *inquiry) func(*session) {
	return func(s *session) {
		m, kind := s.bootInquiry(), q.kind.String()
		m.refuses(q, "without a "+kind+" in use")
		m.report(other, protocol.ProgramActive)
		m.refuses(q, "that has a program in use, and no "+kind)
		m.report(q, protocol.ProgramActive)
		m.report(q, protocol.ProgramWithdrawn)
		m.refuses(q, "whose "+kind+" was withdrawn")
		m.report(q, protocol.ProgramActive)
		m.settle()
		for _, pending := range []*inquiry{q, other} {
			result, e := m.open(pending)
			if pending.part != nil { // it does not end the answer
				pending.part(m, e.Digest, e.Number, 1)
			}
			m.refuses(q, "that was asked for a "+pending.name+", and has not answered")
			pending.answer(m, e.Digest, e.Number, 1)
			m.finds(pending, result, 1)
		}
		m.starve()
		m.refused(q, "that has left one event buffer")
		for range 3 {
			m.supply(protocol.MinProgramBuffer)
		}
		m.join(secondNonce)
		m.refuses(q, "that has begun a session, and said nothing of a "+kind)
		m.elsewhere(firstNonce, func() { m.report(q, protocol.ProgramActive) })
		m.refuses(q, "that has spoken of a "+kind+" in another session")
	}
}

// fpAnswered is about answers to another question than the open one [FBPP-CEN-3, FBPP-SMP-3]. Such
// an answer has more pages than the good one, so that a part of it shows, too. It returns the
// machine, and the event that was answered.
func fpAnswered(s *session, q, other *inquiry) (*inquiryMachine, protocol.ProgramEvent) {
	m := s.bootInquiry()
	m.report(q, protocol.ProgramActive)
	m.report(other, protocol.ProgramActive)
	m.settle()
	q.answer(m, q.digest, 1, 20) // nothing is open
	result, e := m.open(q)
	for i, wrong := range []func(pages uint64){
		func(pages uint64) { q.answer(m, e.Digest, e.Number+1, pages) },
		func(pages uint64) { q.answer(m, e.Digest, e.Number^1<<32, pages) },
		func(pages uint64) { q.answer(m, other.digest, e.Number, pages) },
		func(pages uint64) { other.answer(m, e.Digest, e.Number, pages) },
		func(pages uint64) {
			m.elsewhere(secondNonce, func() { q.answer(m, e.Digest, e.Number, pages) })
		},
	} {
		wrong(uint64(10 + i))
	}
	q.answer(m, e.Digest, e.Number, 8)
	m.finds(q, result, 8)
	return m, e
}
