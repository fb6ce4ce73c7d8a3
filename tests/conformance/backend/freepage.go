// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"slices"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// FreePage is the free page device of docs/spec.md, with the hint window of
// docs/window.md.
func FreePage() *Profile {
	return &Profile{Name: "fbpp", Does: "the free page device; also checks the rules FBPP-*",
		Queues: 2, Queue: protocol.ReportQueue, ReadOnly: 0, Request: helloRequest,
		checks: slices.Concat(fpDevice(), fpEvents(), fpMessages(), fpReports(), fpDrop(), fpPort(),
			fpWindow(), fpPeeks(), fpPrograms(), fpCensus(), fpSample())}
}

// helloRequest is a HELLO: the device reads it, and writes nothing.
func helloRequest(g *vhosttest.Guest, alloc func(uint64) uint64, _, _ int) *Request {
	m := helloMessage(protocol.StatusOK, 0)
	addr := alloc(uint64(len(m)))
	g.Write(addr, m)
	return &Request{
		Buffers: []vhosttest.Buffer{{Addr: addr, Len: uint32(len(m))}},
		Exact:   true,
		Check:   func(uint32) error { return nil },
	}
}

func helloMessage(status protocol.Status, features protocol.Features) []byte {
	h := protocol.Header{Type: protocol.MessageHello, Status: status, PageShift: 12}
	body := protocol.Hello{
		Features: features, MaxOrder: 10, RAMBytes: 2 * memBlock,
		Release: "fbpp-conform", Reason: "a reason",
	}
	p := make([]byte, protocol.HeaderSize+protocol.HelloSize)
	h.Encode(p)
	body.Encode(p[protocol.HeaderSize:])
	return p
}

// reportMessage is a REPORT as its header says, with these records, and with a
// trailer that counts total records if the header says LAST.
func reportMessage(h protocol.Header, total int, records ...protocol.Record) []byte {
	h.Type, h.Count = protocol.MessageReport, uint32(len(records))
	if h.PageShift == 0 {
		h.PageShift = 12
	}
	p := make([]byte, h.Size())
	h.Encode(p)
	for i, r := range records {
		le.PutUint64(p[protocol.HeaderSize+protocol.RecordSize*i:], uint64(r))
	}
	if h.Flags&protocol.FlagLast != 0 {
		t := protocol.Trailer{Records: uint64(total), WalkUS: 1, HoldMaxUS: 1, Holds: 1}
		t.Encode(p[len(p)-protocol.TrailerSize:])
	}
	return p
}

// lastReport is a whole report.
func lastReport(generation uint64, records ...protocol.Record) []byte {
	return reportMessage(lastHeader(generation), len(records), records...)
}

// lastHeader is the header of a report's last message.
func lastHeader(generation uint64) protocol.Header {
	return protocol.Header{Generation: generation, Flags: protocol.FlagLast}
}

// failedReport is the answer of a driver that could not report.
func failedReport(generation uint64) []byte {
	h := lastHeader(generation)
	h.Status = protocol.StatusFailed
	return reportMessage(h, 0)
}

// block is a record of 64 pages, the i-th of a row of blocks. The machine's memory has
// nothing else there.
func block(i int) protocol.Record {
	return protocol.MakeRecord((1<<20+memBlock)>>12+uint64(64*i), 6)
}

// blockRange is the range of block i.
func blockRange(i int) memRange { return memRange{1<<20 + memBlock + uint64(i)<<18, 64 << 12} }

// fpDevice are the rules of the device as such.
func fpDevice() []check {
	return []check{
		{id: "FBPP-FEAT-1", source: "spec.md, section 3",
			text: "The device offers none of the feature bits 0 to 23.", run: fpNoFeatures},
		{id: "FBPP-CFG-1", source: "spec.md, section 4",
			text: "The device ignores writes to its configuration.", run: fpConfigReadOnly},
		{id: "FBPP-CFG-2", source: "spec.md, section 4",
			text: "The device sends a configuration change notification when a field changes.",
			run:  fpConfigChange},
		{id: "FBPP-INIT-2", source: "spec.md, section 5",
			text: "The device asks for no report until it has a HELLO.", run: fpNoHello},
		{id: "FBPP-INIT-4", source: "spec.md, section 5",
			text: "A device that does not know its driver any more sends CHANGED with HELLO_WANTED," +
				" as soon as it has a buffer.",
			run: fpHelloWanted},
		{id: "FBPP-OP-1", source: "spec.md, section 8",
			text: "The device keeps running and answers the next request, whatever happened in this one.",
			run:  fpKeepsRunning},
		{id: "FBPP-OP-2", source: "spec.md, section 8",
			text: "A device that is switched off sends no REPORT_FREE.", run: fpSwitchedOff},
	}
}

func fpNoFeatures(s *session) {
	f := s.realize(vhosttest.Options{})
	if bits := uint64(f.Offered) & (1<<24 - 1); bits != 0 {
		s.Failf("the device offers the reserved bits %#x", bits)
	}
}

func fpConfigReadOnly(s *session) {
	f := s.realize(vhosttest.Options{})
	before, err := f.GetConfig(0, protocol.ConfigSize)
	s.must(err, "read the configuration")
	for _, n := range []int{1, 4, 8, protocol.ConfigSize} {
		_ = f.SetConfig(0, pattern(3, n)) // it may be refused
	}
	after, err := f.GetConfig(0, protocol.ConfigSize)
	s.must(err, "read the configuration again")
	if !slices.Equal(before, after) {
		s.Failf("the configuration was %x, and is %x after writes", before, after)
	}
}

func fpNoHello(s *session) {
	m := s.bootFreePage()
	m.ask()
	if a := m.answer(); a.status != fpNoDriver {
		s.Failf("before HELLO a request ended with status %v", a)
	}
	m.noEvent(protocol.EventReportFree)
}

func fpHelloWanted(s *session) {
	m := s.bootDriver()
	e := m.restartEvents()
	if e.Type != protocol.EventChanged || e.Flags&protocol.EventHelloWanted == 0 {
		s.Failf("the first event of a device whose eventq was stopped is %v", e)
	}
}

func fpKeepsRunning(s *session) {
	m := s.bootDriver()
	for _, wrong := range []func(generation uint64){
		func(uint64) { m.post([]byte{1, 2, 3}) },
		func(g uint64) { m.post(lastReport(g, protocol.MakeRecord(1, 9))) },
		func(g uint64) {
			m.post(reportMessage(lastHeader(g), 99, block(0)))
		},
		func(uint64) { m.cancel() },
		func(g uint64) {
			m.post(failedReport(g))
		},
	} {
		m.ask()
		e := m.await(protocol.EventReportFree)
		wrong(e.Generation)
		m.exchange()
	}
	m.f.Close()
	again := s.bootDriver()
	again.exchange()
}

// fpEvents are the rules of eventq.
func fpEvents() []check {
	const source = "spec.md, section 6"
	return []check{
		{id: "FBPP-EV-1", source: source, text: "The device writes exactly 32 bytes of an event.",
			run: fpEventSize},
		{id: "FBPP-EV-2", source: source,
			text: "A buffer of less than 32 bytes is used with length 0 and skipped.", run: fpShortBuffer},
		{id: "FBPP-EV-3", source: source,
			text: "The generation of REPORT_FREE is never 0, and never one that was used before.",
			run:  fpGenerations},
		{id: "FBPP-EV-4", source: source, text: "A new REPORT_FREE voids the one before.",
			run: fpOvertaken},
		{id: "VHU-LOG-15", source: "vhost-user.rst, Migration",
			text: "An event of the free page device is marked in the log, and so is the used ring.",
			run:  fpEventLogged},
	}
}

func fpEventSize(s *session) {
	m := s.bootDriver()
	m.dropBuffers()
	addr := m.supply(100)
	m.g.Write(addr, slices.Repeat([]byte{blank}, 100))
	m.ask()
	u, err := m.events.Wait(m.cfg.Patience)
	s.must(err, "wait for an event")
	if u.Len != protocol.EventSize {
		s.Failf("the device says that an event has %d bytes", u.Len)
	}
	for i, b := range m.g.Read(addr, 100)[protocol.EventSize:] {
		if b != blank {
			s.Failf("the device wrote byte %d of the buffer, after its event", protocol.EventSize+i)
		}
	}
}

func fpShortBuffer(s *session) {
	m := s.bootDriver()
	m.dropBuffers()
	m.supply(16)
	m.supply(protocol.EventSize)
	m.ask()
	u, err := m.events.Wait(m.cfg.Patience)
	s.must(err, "wait for the short buffer")
	if u.Len != 0 {
		s.Failf("a buffer of 16 bytes was used with length %d", u.Len)
	}
	delete(m.buffers, u.Head)
	m.await(protocol.EventReportFree)
}

func fpGenerations(s *session) {
	seen := make(map[uint64]bool)
	for range 3 {
		m := s.bootDriver()
		for range 10 {
			m.ask()
			g := m.await(protocol.EventReportFree).Generation
			if g == 0 || seen[g] {
				s.Failf("generation %#x is 0 or was used before; so far there were %d", g, len(seen))
			}
			seen[g] = true
			m.post(lastReport(g))
			m.answer()
		}
		m.f.Close()
	}
}

func fpOvertaken(s *session) {
	m := s.bootDriver()
	m.ask()
	first := m.await(protocol.EventReportFree)
	m.ask()
	second := m.await(protocol.EventReportFree)
	m.post(lastReport(first.Generation, block(0)))
	m.post(lastReport(second.Generation, block(1)))
	m.expectRanges(blockRange(1))
}

func fpEventLogged(s *session) {
	m := s.bootDriver()
	m.needLog()
	mig, err := m.f.StartMigration(m.g, m.queues...)
	s.must(err, "switch logging on")
	s.Cleanup(mig.Close)
	for range 4 {
		mig.Round()
		m.ask()
		m.post(lastReport(m.await(protocol.EventReportFree).Generation))
		m.answer()
	}
	s.must(m.f.Stop(m.queues...), "stop the rings")
	if pages := mig.Missing(); len(pages) > 0 {
		s.Failf("%d pages were written and are not in the log, page %#x among them", len(pages), pages[0])
	}
}
