// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"io"
	"net"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// fpPort are the rules of the serial port.
func fpPort() []check {
	const source = "spec.md, section 7.4"
	return []check{
		{id: "FBPP-PORT-2", source: source,
			text: "A HELLO by the port has the effect of one on reportq, until a driver starts eventq.",
			run:  fpPortHello},
		{id: "FBPP-PORT-3", source: source,
			text: "At anything but a message the device closes its end of the port, and opens it anew.",
			run:  fpPortNonsense},
		{id: "FBPP-PORT-4", source: source,
			text: "When the port is opened the device says whether it takes reports, and asks a driver" +
				" that could report.",
			run: fpPortAsks},
		{id: "FBPP-PORT-5", source: source,
			text: "An answer counts by the way by which REPORT_FREE went, and for the open request only.",
			run:  fpPortAnswers},
		{id: "FBPP-PORT-7", source: source,
			text: "A HELLO by the port that refuses has no effect on a driver of the device that reports.",
			run:  fpPortBeside},
	}
}

// serialPort is the machine's end of the port.
type serialPort struct {
	*session
	net.Conn
	reports bool // the device takes reports here
}

// port connects to the device's end of the port, as the machine monitor does, and takes the
// event that the device begins with.
func (s *session) port() *serialPort {
	s.need(s.cfg.AgentPath != "", "needs the socket of the serial port (--agent-socket)")
	c, err := net.Dial("unix", s.cfg.AgentPath)
	s.must(err, "connect to the port")
	s.Cleanup(func() { _ = c.Close() })
	p := &serialPort{session: s, Conn: c}
	e := p.next()
	if e.Type != protocol.EventChanged {
		s.Failf("the first event by the port is %v", e)
	}
	p.reports = e.Flags&protocol.EventHelloWanted != 0
	return p
}

func (p *serialPort) write(b []byte) {
	_, err := p.Write(b)
	p.must(err, "write to the port")
}

func (p *serialPort) next() protocol.Event {
	p.must(p.SetReadDeadline(deadlineAfter(p.cfg.Patience)), "set deadline")
	var b [protocol.EventSize]byte
	_, err := io.ReadFull(p, b[:])
	p.must(err, "read an event from the port")
	e, err := protocol.DecodeEvent(b[:])
	p.must(err, "decode an event")
	return e
}

// expect fails unless the next event has that type. A device may ask for a HELLO at any time, and
// its CANCEL of a request that was given up may come late.
func (p *serialPort) expect(want protocol.EventType) protocol.Event {
	e := p.next()
	for e.Type != want && (e.Type == protocol.EventChanged || e.Type == protocol.EventCancel) {
		e = p.next()
	}
	if e.Type != want {
		p.Failf("the device sent %v by the port", e)
	}
	return e
}

// sync waits until the device has handled all that was written. The driver at the port has
// said HELLO before.
func (p *serialPort) sync() {
	p.write(helloMessage(protocol.StatusLockdown, protocol.FeaturePort))
	for {
		if e := p.next(); e.Type == protocol.EventChanged {
			return
		}
	}
}

func fpPortHello(s *session) {
	port := s.port()
	m := s.boot(bootOptions{stopped: true, Options: windowOptions})
	fm := m.withWindow()
	port.write(helloMessage(protocol.StatusLockdown, 0))
	fm.until(fpRefused, "after a HELLO by the port that refuses")
	m.f.Close()
	again := s.bootDriver()
	again.exchange()
}

func fpPortBeside(s *session) {
	m := s.bootDriver()
	port := s.port()
	s.need(port.reports, "the device takes only refusals by the port")
	port.write(helloMessage(protocol.StatusUnsupported, 0))
	port.sync()
	m.exchange()
}

func fpPortNonsense(s *session) {
	long := protocol.Header{
		Type: protocol.MessageReport, Count: protocol.MaxPortRecords + 1, PageShift: 12,
	}
	tooLong := make([]byte, protocol.HeaderSize)
	long.Encode(tooLong)
	for _, p := range [][]byte{pattern(5, 192), tooLong} {
		port := s.port()
		port.write(p)
		s.must(port.SetReadDeadline(deadlineAfter(s.cfg.Patience)), "set deadline")
		if _, err := io.Copy(io.Discard, port); err != nil && !closed(err) {
			s.Failf("the device did not close the port: %v", err)
		}
	}
	fpPortHello(s)
}

func fpPortAsks(s *session) {
	port := s.port()
	s.need(port.reports, "the device takes only refusals by the port")
	for range 3 {
		port.write(helloMessage(protocol.StatusLockdown, protocol.FeaturePort))
		if e := port.expect(protocol.EventChanged); e.Flags&protocol.EventHelloWanted == 0 {
			s.Failf("a driver that could report gets %v", e)
		}
	}
}

func fpPortAnswers(s *session) {
	m := s.bootDriver() // it has guest memory, and the driver at the port replaces its driver
	port := s.port()
	s.need(port.reports, "the device takes only refusals by the port")
	port.write(helloMessage(protocol.StatusOK, protocol.FeaturePort))
	port.sync()
	m.ask()
	old := port.expect(protocol.EventReportFree).Generation
	m.cancel()
	m.expectStatus(fpCancelled, "the request was given up")
	port.sync()
	m.ask()
	g := port.expect(protocol.EventReportFree).Generation
	port.write(lastReport(old, block(0)))
	port.sync()
	m.post(lastReport(g, block(0)))
	port.write(lastReport(g, block(1)))
	m.expectRanges(blockRange(1))
}
