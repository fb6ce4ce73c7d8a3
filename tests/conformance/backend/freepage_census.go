// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// fpCensus are the rules of section 9.5 for the device. They need a way to ask for a census.
func fpCensus() []check {
	const source = "spec.md, section 9.5"
	return []check{
		{id: "FBPP-CEN-1", source: source,
			text: "COUNT names a census that the driver has in use, and only one COUNT is open.",
			run:  fpCount},
		{id: "FBPP-CEN-3", source: source,
			text: "A CENSUS that does not answer the open COUNT has no effect.", run: fpCounted},
	}
}

// censusDigest is that of the census which the driver of these checks has in use.
var censusDigest = protocol.Digest{0: 0xce, 31: 0x05}

// taken is the result of a census that was asked for by the control socket.
type taken struct {
	census *census.Census
	err    error
}

// bootCensus boots up to a driver whose session takes a census and has none.
func (s *session) bootCensus() *programMachine {
	s.need(s.cfg.ControlPath != "", "needs a way to ask for a census (--control-path)")
	m := s.bootPrograms(protocol.FeaturePrograms)
	m.acceptCensus(firstNonce)
	return m
}

// acceptCensus begins a session that takes a census.
func (m *programMachine) acceptCensus(nonce uint64) {
	a := protocol.Accepts{
		Kinds:   protocol.KindWalk.Mask() | protocol.KindCensus.Mask(),
		MaxSize: protocol.MaxProgramSize,
	}
	m.postProgram(protocol.MessageAccepts, nonce, protocol.AcceptsSize, a.Encode)
	m.expectProgram(protocol.EventOffer, nonce)
}

// takeCensus asks for a census, and returns at once.
func (m *programMachine) takeCensus() <-chan taken {
	result := make(chan taken, 1)
	c := control.NewClient(m.cfg.ControlPath)
	ctx := m.Context()
	go func() {
		census, err := c.GuestCensus(ctx)
		result <- taken{census, err}
	}()
	return result
}

// reportCensus says what has become of the census, and waits until the device knows.
func (m *programMachine) reportCensus(state protocol.ProgramState) {
	r := protocol.ProgramReport{Digest: censusDigest, Kind: protocol.KindCensus, State: state}
	m.postProgram(protocol.MessageProgram, firstNonce, protocol.ProgramReportSize, r.Encode)
	m.get(firstNonce, protocol.Digest{1}, 0, 1)
	m.expectProgram(protocol.EventGone, firstNonce)
}

// answerCount sends a census of so many free pages.
func (m *programMachine) answerCount(d protocol.Digest, number, free uint64) {
	r := protocol.CensusReport{Digest: d, Number: number, Runs: 1}
	r.Counts[1][protocol.CensusPages] = free
	m.postProgram(protocol.MessageCensus, firstNonce, protocol.CensusReportSize, r.Encode)
}

func (m *programMachine) expectCount() protocol.ProgramEvent {
	e := m.expectProgram(protocol.EventCount, firstNonce)
	if e.Digest != censusDigest {
		m.Failf("COUNT names the program %v, which is not in use", e.Digest)
	}
	return e
}

// noCensus checks that the device does not ask a driver without a census in use.
func (m *programMachine) noCensus(when string) {
	if r := <-m.takeCensus(); r.err == nil {
		m.Failf("there is a census of a guest %s", when)
	}
	m.noProgram(when)
}

func fpCount(s *session) {
	m := s.bootCensus()
	m.noCensus("without one in use")
	m.reportCensus(protocol.ProgramActive)
	m.reportCensus(protocol.ProgramWithdrawn)
	m.noCensus("whose census was withdrawn")
	m.reportCensus(protocol.ProgramActive)
	result := m.takeCensus()
	e := m.expectCount()
	if r := <-m.takeCensus(); r.err == nil {
		m.Failf("there are two censuses of one COUNT")
	}
	m.noProgram("while a COUNT is open")
	m.answerCount(e.Digest, e.Number, 1)
	if r := <-result; r.err != nil {
		m.Failf("after a good answer: %v", r.err)
	}
	m.acceptCensus(secondNonce)
	m.noCensus("that has begun a session, and said nothing of a census")
}

func fpCounted(s *session) {
	m := s.bootCensus()
	m.reportCensus(protocol.ProgramActive)
	m.answerCount(censusDigest, 1, 5) // nothing is open
	result := m.takeCensus()
	e := m.expectCount()
	m.answerCount(e.Digest, e.Number+1, 6)
	m.answerCount(protocol.Digest{1}, e.Number, 7)
	m.answerCount(e.Digest, e.Number, 8)
	r := <-result
	if r.err != nil {
		m.Failf("after a good answer: %v", r.err)
	}
	if len(r.census.Classes) != 1 || r.census.Classes[0].Pages != 8 {
		m.Failf("the census is that of another answer: %+v", r.census.Classes)
	}
}
