// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"slices"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// fpMessages are the rules of reportq and of HELLO.
func fpMessages() []check {
	const source = "spec.md, section 7"
	return []check{
		{id: "FBPP-MSG-1", source: source,
			text: "A chain that is shorter or longer than its header says," +
				" or has a device-writable part, is malformed.",
			run: fpMalformed},
		{id: "FBPP-MSG-2", source: source,
			text: "A malformed message, or one of an unknown type, ends an open request with the" +
				" status bad-report.",
			run: fpMalformedFields},
		{id: "FBPP-MSG-3", source: source,
			text: "A message of another generation has no effect.", run: fpOtherGeneration},
		{id: "FBPP-HELLO-2", source: "spec.md, section 7.1",
			text: "A guest that checks the contents of free pages is never asked, whatever its status says.",
			run:  fpPoison},
		{id: "FBPP-HELLO-3", source: "spec.md, section 7.1",
			text: "A later HELLO replaces an earlier one.", run: fpLaterHello},
	}
}

func fpOtherGeneration(s *session) {
	m := s.bootDriver()
	m.post(lastReport(12345, block(5))) // no request is open
	m.ask()
	g := m.await(protocol.EventReportFree).Generation
	m.post(lastReport(g+1, block(0)))
	m.post(lastReport(0, block(0)))
	m.post(lastReport(g, block(2)))
	m.expectRanges(blockRange(2))
}

func fpPoison(s *session) {
	m := s.bootFreePage()
	m.post(helloMessage(protocol.StatusOK, protocol.FeaturePagePoison))
	m.ask()
	m.expectStatus(fpRefused, "the guest checks its free pages, but says OK")
	m.noEvent(protocol.EventReportFree)
}

func fpLaterHello(s *session) {
	m := s.bootDriver()
	m.post(helloMessage(protocol.StatusUnsupported, 0))
	m.ask()
	m.expectStatus(fpRefused, "a later HELLO refuses")
	m.noEvent(protocol.EventReportFree)
	m.post(helloMessage(protocol.StatusOK, 0))
	m.exchange()
}

// fpReports are the rules of reports. Whatever a driver breaks, the device
// discards the whole request.
func fpReports() []check {
	const source = "spec.md, section 7.3"
	const discard = "; a report that breaks this is discarded."
	return []check{
		{id: "FBPP-REP-1", source: source,
			text: "A request may be answered by any number of REPORT messages, up to the one with LAST.",
			run:  fpManyReports},
		{id: "FBPP-REP-3", source: source,
			text: "A block is aligned to its size, is no larger than 1 TiB, and has class 0" + discard,
			run:  fpBadBlocks},
		{id: "FBPP-REP-4", source: source,
			text: "Two blocks do not overlap, unless RESUMED was seen" + discard, run: fpOverlap},
		{id: "FBPP-REP-5", source: source,
			text: "All messages of a request have the same page_shift" + discard, run: fpPageShift},
		{id: "FBPP-REP-6", source: source,
			text: "LAST with a status that is not 0 ends the request, without blocks.", run: fpCannotAnswer},
		{id: "FBPP-REP-7", source: source,
			text: "There are at most twice as many records as 4 KiB pages of guest memory" + discard,
			run:  fpTooMany},
		{id: "FBPP-REP-8", source: source,
			text: "The number of records is that of the trailer" + discard, run: fpTrailer},
		{id: "FBPP-REP-9", source: source,
			text: "Of a request that breaks a rule none of the blocks is used, the good ones neither.",
			run:  fpDiscardsAll},
		{id: "FBPP-REP-12", source: source,
			text: "What of a block the device does not see is left out, and the rest is used.",
			run:  fpOutside},
	}
}

// badReport makes a request, and answers it with messages that the device has to discard.
func (m *freePageMachine) badReport(what string, messages func(generation uint64) [][]byte) {
	m.ask()
	for _, p := range messages(m.await(protocol.EventReportFree).Generation) {
		m.post(p)
	}
	m.expectStatus(fpBadReport, what)
}

// badRecords is badReport for one message with these records.
func (m *freePageMachine) badRecords(what string, flags uint16, records ...protocol.Record) {
	m.badReport(what, func(g uint64) [][]byte {
		h := lastHeader(g)
		h.Flags |= flags
		return [][]byte{reportMessage(h, len(records), records...)}
	})
}

func fpManyReports(s *session) {
	m := s.bootDriver()
	m.ask()
	g := m.await(protocol.EventReportFree).Generation
	m.post(reportMessage(protocol.Header{Generation: g}, 0, block(4)))
	m.post(reportMessage(protocol.Header{Generation: g}, 0))
	m.post(reportMessage(protocol.Header{Generation: g}, 0, block(0), block(2)))
	m.post(reportMessage(lastHeader(g), 4, block(6)))
	m.expectRanges(blockRange(0), blockRange(2), blockRange(4), blockRange(6))
	m.post(lastReport(g, block(1))) // after LAST: no effect
	m.exchange()
}

func fpBadBlocks(s *session) {
	m := s.bootDriver()
	first := uint64(1<<20) >> 12
	m.badRecords("a block that is not aligned to its size", 0, protocol.MakeRecord(first+1, 1))
	m.badRecords("a block of order 63", 0, protocol.MakeRecord(0, 63))
	m.badRecords("a block of class 1", 0, block(0)|1<<6)
	m.exchange()
}

func fpOutside(s *session) {
	m := s.bootDriver()
	first, end := uint64(1<<20)>>12, (uint64(1<<20)+2*memBlock)>>12
	for what, outside := range map[string]protocol.Record{
		"past the end of memory":              protocol.MakeRecord(end, 0),
		"before memory":                       protocol.MakeRecord(first-1, 0),
		"far from memory":                     protocol.MakeRecord(1<<40, 10),
		"at the top of what a record can say": protocol.MakeRecord(1<<56-1, 0),
	} {
		m.ask()
		g := m.await(protocol.EventReportFree).Generation
		m.post(lastReport(g, block(1), outside, block(3)))
		want := []memRange{blockRange(1), blockRange(3)}
		if a := m.answer(); a.status != fpOK || !slices.Equal(a.ranges, want) {
			s.Failf("with a block %s: the request ended with status %v", what, a)
		}
	}
	m.ask() // the block in the answer reaches past the end of memory
	m.post(lastReport(m.await(protocol.EventReportFree).Generation, protocol.MakeRecord(end&^511, 9)))
	inside := end - end&^511
	m.expectRanges(memRange{(end - inside) << 12, inside << 12})
}

func fpOverlap(s *session) {
	m := s.bootDriver()
	m.badRecords("the same block twice", 0, block(0), block(0))
	m.badRecords("a block within another", 0, block(0), protocol.MakeRecord(block(0).PFN()+8, 3))
	m.ask()
	g := m.await(protocol.EventReportFree).Generation
	h := lastHeader(g)
	h.Flags |= protocol.FlagResumed
	m.post(reportMessage(h, 2, block(0), block(0)))
	m.expectRanges(blockRange(0))
}

func fpPageShift(s *session) {
	m := s.bootDriver()
	m.badReport("a page_shift that changes", func(g uint64) [][]byte {
		return [][]byte{
			reportMessage(protocol.Header{Generation: g, PageShift: 12}, 0, block(0)),
			reportMessage(protocol.Header{Generation: g, PageShift: 13, Flags: protocol.FlagLast}, 1),
		}
	})
	m.exchange()
}

func fpCannotAnswer(s *session) {
	m := s.bootDriver()
	m.ask()
	g := m.await(protocol.EventReportFree).Generation
	m.post(reportMessage(protocol.Header{Generation: g}, 0, block(0)))
	m.post(failedReport(g))
	if a := m.answer(); a.status == fpOK || len(a.ranges) > 0 {
		s.Failf("a driver that cannot answer led to status %v", a)
	}
	m.exchange()
}

func fpTooMany(s *session) {
	m := s.bootDriver()
	// RESUMED, so that nothing but their number is wrong.
	records := make([]protocol.Record, 2*2*memBlock>>12+1)
	for i := range records {
		records[i] = protocol.MakeRecord(block(0).PFN()+uint64(i%64), 0)
	}
	m.badRecords("more records than twice the pages", protocol.FlagResumed, records...)
	m.exchange()
}

func fpTrailer(s *session) {
	m := s.bootDriver()
	for _, n := range []int{0, 1, 3} {
		m.badReport("a trailer that counts other than 2 records", func(g uint64) [][]byte {
			return [][]byte{reportMessage(lastHeader(g), n, block(0), block(1))}
		})
	}
	m.exchange()
}

func fpDiscardsAll(s *session) {
	m := s.bootDriver()
	m.badReport("good blocks, and a bad one in a later message", func(g uint64) [][]byte {
		return [][]byte{
			reportMessage(protocol.Header{Generation: g}, 0, block(0), block(2)),
			reportMessage(lastHeader(g), 3, protocol.MakeRecord(1, 5)),
		}
	})
	m.ask() // nothing of it comes back either
	m.post(lastReport(m.await(protocol.EventReportFree).Generation, block(7)))
	m.expectRanges(blockRange(7))
}
