// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

func fpMalformed(s *session) {
	m := s.bootDriver()
	for _, c := range []struct {
		what string
		post func(generation uint64)
	}{
		{"a message shorter than a header", func(g uint64) { m.post(startedMessage(g)[:31]) }},
		{"a message without a byte of payload that it counts", func(g uint64) {
			p := lastReport(g, block(0))
			m.post(p[:len(p)-8])
		}},
		{"a message longer than it says", func(g uint64) { m.post(append(lastReport(g, block(0)), 0)) }},
		{"a message with a device-writable part", func(g uint64) {
			p := lastReport(g, block(0))
			m.g.Write(m.message, p)
			m.postBuffers(vhosttest.Buffer{Addr: m.message, Len: uint32(len(p))},
				vhosttest.Buffer{Addr: m.message + 4096, Len: 16, Write: true})
		}},
	} {
		m.ask()
		c.post(m.await(protocol.EventReportFree).Generation)
		m.expectStatus(fpBadReport, c.what)
	}
	m.exchange()
}

// Offsets of a message's fields.
const (
	atType, atFlags, atCount    = 0, 2, 4
	atGeneration, atStatus      = 8, 16
	atShift, atReserved         = 20, 21
	atReserved2                 = 24
	atMaxOrder, atHelloReserved = protocol.HeaderSize + 4, protocol.HeaderSize + 5
)

// fpMalformedFields sends one message of each form that section 7 calls
// malformed, of the right length, and then those about programs.
func fpMalformedFields(s *session) {
	m := s.bootDriver()
	hello := func(uint64) []byte { return helloMessage(protocol.StatusOK, 0) }
	report := func(g uint64) []byte { return lastReport(g, block(0)) }
	open := func(g uint64) []byte { return reportMessage(protocol.Header{Generation: g}, 0, block(0)) }
	cannot := func(g uint64) []byte { return lastReport(g) }
	for _, c := range []struct {
		what    string
		message func(generation uint64) []byte
		at      int // which byte is changed, and to what
		to      byte
	}{
		{"a message of type 0", startedMessage, atType, 0},
		{"a message of type 4", startedMessage, atType, 4},
		{"a message of a type of two bytes", startedMessage, atType + 1, 0xff},
		{"a STARTED with a page_shift of 11", startedMessage, atShift, 11},
		{"a REPORT with a page_shift of 17", report, atShift, 17},
		{"a HELLO with a page_shift of 0", hello, atShift, 0},
		{"a STARTED whose reserved bytes are not 0", startedMessage, atReserved, 1},
		{"a REPORT whose last reserved byte is not 0", report, atReserved + 2, 1},
		{"a HELLO whose reserved word is not 0", hello, atReserved2, 1},
		{"a REPORT whose reserved word is not 0", report, atReserved2 + 7, 0x80},
		{"a HELLO whose own reserved bytes are not 0", hello, atHelloReserved + 1, 1},
		{"a HELLO of an unknown status", hello, atStatus, 5},
		{"a REPORT of an unknown status", cannot, atStatus, 5},
		{"a REPORT with an unknown flag", open, atFlags, 8},
		{"a REPORT with an unknown flag beside LAST", report, atFlags + 1, 1},
		{"a HELLO with records", hello, atCount, 1},
		{"a HELLO with flags", hello, atFlags, protocol.FlagLast},
		{"a STARTED with records", startedMessage, atCount, 1},
		{"a STARTED with flags", startedMessage, atFlags, protocol.FlagResumed},
		{"a STARTED with a status", startedMessage, atStatus, byte(protocol.StatusFailed)},
		{"a HELLO with a generation", hello, atGeneration, 1},
		{"a HELLO with a max_order of 64", hello, atMaxOrder, 64},
		{"a REPORT with a status and records", report, atStatus, byte(protocol.StatusFailed)},
		{"a REPORT with a status, and without LAST", func(g uint64) []byte {
			return reportMessage(protocol.Header{Generation: g}, 0)
		}, atStatus, byte(protocol.StatusFailed)},
	} {
		m.ask()
		p := c.message(m.await(protocol.EventReportFree).Generation)
		p[c.at] = c.to
		m.post(p)
		m.expectStatus(fpBadReport, c.what)
	}
	m.exchange() // the HELLOs among them have changed nothing
	m.f.Close()
	fpMalformedAnswers(s)
}

func startedMessage(generation uint64) []byte {
	h := protocol.Header{Type: protocol.MessageStarted, Generation: generation, PageShift: 12}
	p := make([]byte, protocol.HeaderSize)
	h.Encode(p)
	return p
}

// fpMalformedAnswers sends one message of each form that sections 9.5 and 9.6 call malformed.
func fpMalformedAnswers(s *session) {
	m := s.bootPrograms(protocol.FeaturePrograms)
	m.accept(firstNonce)
	const counted, sampled = protocol.MessageCensus, protocol.MessageSampled
	census := protocol.CensusReport{}
	census.Counts[1][protocol.CensusPages] = 1 << 40 // as many as can be
	failed := protocol.CensusReport{Failed: true}
	part := protocol.SampleReport{First: protocol.SampledPages}
	free := protocol.SampleReport{State: protocol.SampleFree, First: protocol.SampledPages}
	end := protocol.SampleReport{State: protocol.SampleDone}
	noSample := protocol.SampleReport{State: protocol.SampleFailed}
	const atState, atZero, atFirst, atCounts, atHot = 40, 56, 56, 64, 64 // of the body
	for _, c := range []struct {
		what string
		of   protocol.MessageType
		body interface{ Encode(p []byte) }
		at   int // which byte is changed, and to what
		to   byte
	}{
		{"a CENSUS with the state 2", counted, &failed, atState, 2},
		{"a CENSUS whose reserved word is not 0", counted, &census, atZero + 7, 1},
		{"a CENSUS that has failed, and has pages", counted, &failed, atCounts, 1},
		{"a CENSUS with more mapped pages than pages", counted, &census, atCounts + 8 + 7, 1},
		{"a CENSUS of more pages than can be", counted, &census, atCounts, 1},
		{"a SAMPLED with the state 4", sampled, &end, atState, 4},
		{"a SAMPLED with a state of two bytes", sampled, &part, atState + 1, 1},
		{"a part of a sample that begins within a window", sampled, &part, atFirst, 1},
		{"a part with free pages that begins within a window", sampled, &free, atFirst, 1},
		{"a part of a sample of pages that cannot be", sampled, &part, atFirst + 5, 1},
		{"an end of a sample with a page frame", sampled, &part, atState, byte(end.State)},
		{"an end of a sample with hot pages", sampled, &end, atHot + 511, 1},
		{"a failed sample with hot pages", sampled, &noSample, atHot, 1},
	} {
		m.begin()
		size := int((&protocol.Header{Type: c.of}).Size()) - protocol.HeaderSize
		m.postProgram(c.of, firstNonce, size, func(p []byte) {
			c.body.Encode(p)
			p[c.at] = c.to
		})
		m.expectStatus(fpBadReport, c.what)
	}
}
