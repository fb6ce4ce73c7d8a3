// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// serial is the guest's end of a serial port that the device serves.
type serial struct {
	m *machine
	net.Conn
	served chan error
}

// plug connects a serial port, and takes the event that the device begins with.
func (m *machine) plug() *serial {
	m.t.Helper()
	guest, host := net.Pipe()
	s := &serial{m: m, Conn: guest, served: make(chan error, 1)}
	go func() { s.served <- m.dev.ServePort(host) }()
	m.t.Cleanup(func() { guest.Close() })
	m.must(guest.SetDeadline(time.Now().Add(patience)))
	s.expect(protocol.EventChanged)
	return s
}

func (s *serial) expect(want protocol.EventType) protocol.Event {
	s.m.t.Helper()
	var p [protocol.EventSize]byte
	_, err := io.ReadFull(s, p[:])
	s.m.must(err)
	e, err := protocol.DecodeEvent(p[:])
	s.m.must(err)
	if e.Type != want {
		s.m.t.Fatalf("event %v by the port, want %v", e, want)
	}
	return e
}

// say writes messages, and waits until the device has handled all of them.
func (s *serial) say(messages ...[]byte) {
	s.m.t.Helper()
	_, err := s.Write(slices.Concat(messages...))
	s.m.must(err)
	// This one has no other effect than an answer.
	_, err = s.Write(helloMessage(protocol.StatusLockdown, protocol.FeaturePort))
	s.m.must(err)
	s.expect(protocol.EventChanged)
}

// requireClosed checks that the device closed its end, and that the error says why; "" means
// no error.
func (s *serial) requireClosed(want string) {
	s.m.t.Helper()
	go func() { _, _ = io.Copy(io.Discard, s) }() // events that are on their way
	select {
	case err := <-s.served:
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			s.m.t.Errorf("the device closed the port: %v, want %q", err, want)
		}
	case <-time.After(patience):
		s.m.t.Error("the port is still open")
	}
}

// awaitDriver waits until the driver has a state.
func (m *machine) awaitDriver(state string) {
	m.t.Helper()
	for end := time.After(patience); ; {
		changed := m.dev.Changed()
		if m.dev.Status().DriverState == state {
			return
		}
		select {
		case <-changed:
		case <-end:
			m.t.Fatalf("the driver is %q, want %q", m.dev.Status().DriverState, state)
		}
	}
}

// mustBootWithPort starts a machine whose guest has not started the device.
func mustBootWithPort(t *testing.T, policy device.PortPolicy) *machine {
	t.Helper()
	m := mustBoot(t, device.Options{Port: policy})
	m.expectEvent(protocol.EventChanged)
	m.must(m.fe.Stop(m.events, m.report))
	return m
}

func portHello() []byte { return helloMessage(protocol.StatusOK, protocol.FeaturePort) }

func (m *machine) requireOK() {
	m.t.Helper()
	status, ranges := m.answer()
	if status != protocol.AnswerOK || !slices.Equal(ranges, block512()) {
		m.t.Fatalf("the request ended with %v and %v; last: %+v", status, ranges, m.dev.Status().Last)
	}
}

func TestReportByTheSerialPort(t *testing.T) {
	m := mustBootWithPort(t, device.PortReport)
	s := m.plug()
	m.request(patience)
	m.expect(protocol.AnswerNoDriver)
	s.say() // a driver that would report
	if state := m.dev.Status().DriverState; state != "none" {
		t.Errorf("the driver is %q before it was asked for its HELLO", state)
	}
	s.say(portHello())
	if d := m.dev.Status(); d.DriverState != "ready" || !d.Driver.Port {
		t.Fatalf("the driver is %q, %+v", d.DriverState, d.Driver)
	}
	for range 2 {
		m.request(patience)
		g := s.expect(protocol.EventReportFree).Generation
		first := reportMessage(g, protocol.FlagResumed, 0, protocol.MakeRecord(512, 9))
		end := reportMessage(g, protocol.FlagLast|protocol.FlagResumed, 2, protocol.MakeRecord(768, 8))
		stream := slices.Concat(startedMessage(g), first, end)
		for _, cut := range []int{1, 30, 32, 40, 71, 100} { // in pieces
			_, err := s.Write(stream[:min(cut, len(stream))])
			m.must(err)
			stream = stream[min(cut, len(stream)):]
		}
		m.requireOK()
	}
}

// The invariant: a report counts only for the request that is open, and only by the way by
// which that was asked. Whatever else is in the port is of another time.
func TestAReportOfYesterdayHasNoEffect(t *testing.T) {
	yesterday := protocol.MakeRecord(1024, 9)
	for _, tc := range []struct {
		name string
		do   func(m *machine, s *serial, old uint64) *serial
	}{
		{"of an earlier request", func(m *machine, s *serial, old uint64) *serial {
			return s
		}},
		{"of before the port was closed", func(m *machine, s *serial, old uint64) *serial {
			s.Close()
			s.requireClosed("")
			s = m.plug()
			s.say(portHello())
			return s
		}},
		{"of before a reset of the machine", func(m *machine, s *serial, old uint64) *serial {
			m.window.Boot()
			s.expect(protocol.EventChanged)
			s.say(portHello())
			return s
		}},
		{"of before another frontend came", func(m *machine, s *serial, old uint64) *serial {
			m.fe.Close()
			s.expect(protocol.EventChanged)
			m.mustDisconnect()
			m.connect()
			m.expectEvent(protocol.EventChanged)
			m.must(m.fe.Stop(m.events, m.report))
			s.expect(protocol.EventChanged)
			s.say(portHello())
			return s
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := mustBootWithPort(t, device.PortReport)
			s := m.plug()
			m.window.Boot() // the first is what the device begins with
			s.say(portHello())
			m.request(patience)
			old := s.expect(protocol.EventReportFree).Generation
			m.cancel()
			m.expect(protocol.AnswerCancelled)
			s.expect(protocol.EventCancel)
			s.say(last(old, yesterday)) // nothing is open
			s = tc.do(m, s, old)
			m.request(patience)
			now := s.expect(protocol.EventReportFree).Generation
			s.say(startedMessage(old), last(old, yesterday))
			if !m.dev.Status().Asking {
				t.Fatal("a report of yesterday ended the request")
			}
			s.say(last(now, protocol.MakeRecord(512, 9)))
			m.requireOK()
		})
	}
}

func TestAReportByTheOtherWayHasNoEffect(t *testing.T) {
	m := mustBoot(t, device.Options{Port: device.PortReport})
	m.hello(protocol.StatusOK, 0)
	s := m.plug()
	m.request(patience)
	g := m.expectEvent(protocol.EventReportFree).Generation
	s.say(last(g, protocol.MakeRecord(1024, 9)))
	m.post(last(g, protocol.MakeRecord(512, 9)))
	m.requireOK()
	s.say(portHello()) // the newest driver is the one
	m.request(patience)
	g = s.expect(protocol.EventReportFree).Generation
	m.post(last(g, protocol.MakeRecord(1024, 9)))
	m.post(make([]byte, protocol.HeaderSize)) // malformed, and not in this request
	s.say(last(g, protocol.MakeRecord(512, 9)))
	m.requireOK()
}

func TestNonsenseClosesTheSerialPort(t *testing.T) {
	accepts := make([]byte, protocol.HeaderSize+protocol.AcceptsSize)
	h := protocol.Header{Type: protocol.MessageAccepts, Generation: 1, PageShift: 12}
	h.Encode(accepts)
	for _, tc := range []struct {
		name   string
		stream func(generation uint64) []byte
		want   string
	}{
		{"garbage", func(uint64) []byte { return slices.Repeat([]byte{0xa5}, 32) },
			"unknown type"},
		{"a message about programs", func(uint64) []byte { return accepts }, "accepts"},
		{"a report that is too long for the port", func(g uint64) []byte {
			long := make([]protocol.Record, protocol.MaxPortRecords+1)
			return reportMessage(g, 0, 0, long...)[:protocol.HeaderSize]
		}, "records at a time"},
		{"a bad record", func(g uint64) []byte { return last(g, protocol.MakeRecord(1, 9)) },
			"aligned"},
		{"a wrong count", func(g uint64) []byte { return reportMessage(g, protocol.FlagLast, 7) },
			"trailer counts"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := mustBootWithPort(t, device.PortReport)
			s := m.plug()
			s.say(portHello())
			m.request(patience)
			g := s.expect(protocol.EventReportFree).Generation
			_, err := s.Write(tc.stream(g))
			m.must(err)
			m.expect(protocol.AnswerBadReport)
			s.requireClosed(tc.want)
			if state := m.dev.Status().DriverState; state != "none" {
				t.Errorf("the driver is %q after its port was closed", state)
			}
			s = m.plug() // as QEMU does
			s.say(portHello())
			m.request(patience)
			g = s.expect(protocol.EventReportFree).Generation
			s.say(last(g, protocol.MakeRecord(512, 9)))
			m.requireOK()
		})
	}
}

func TestARequestEndsWithThePort(t *testing.T) {
	m := mustBootWithPort(t, device.PortReport)
	s := m.plug()
	s.say(portHello())
	m.request(patience)
	g := s.expect(protocol.EventReportFree).Generation
	_, err := s.Write(last(g, protocol.MakeRecord(512, 9))[:50]) // half a message
	m.must(err)
	s.Close()
	m.expect(protocol.AnswerNoDriver)
	s.requireClosed("unexpected EOF")
}

// A guest may not read its port at all.
func TestAPortThatNobodyReadsHoldsUpNothing(t *testing.T) {
	m := mustBootWithPort(t, device.PortReport)
	s := m.plug()
	s.say(portHello())
	why := ""
	for range 10 { // the pipe takes nothing, the backlog some
		m.request(20 * time.Millisecond)
		m.expect(protocol.AnswerDriverTimeout)
		why = m.dev.Status().Last.Why
	}
	if !strings.Contains(why, "no buffer") {
		t.Errorf("the last request failed because %q", why)
	}
	s.Close()
	s.requireClosed("")
}

func TestAPortForRefusalsTakesNoReports(t *testing.T) {
	m := mustBootWithPort(t, device.PortRefuseOnly)
	s := m.plug()
	_, err := s.Write(helloMessage(protocol.StatusLockdown, protocol.FeaturePort))
	m.must(err)
	_, err = s.Write(portHello())
	m.must(err)
	s.requireClosed("takes refusals only")
	m.request(patience)
	m.expect(protocol.AnswerRefused)
	if got := m.dev.Status(); got.DriverState != "refuses" || got.Driver.Reason != "a reason" {
		t.Errorf("the driver is %q, %+v", got.DriverState, got.Driver)
	}
}

// A driver that starts the device is another one than that at the port.
func TestADriverThatStartsTheDeviceEndsTheRequestAtThePort(t *testing.T) {
	m := mustBootWithPort(t, device.PortReport)
	s := m.plug()
	s.say(portHello())
	m.request(patience)
	s.expect(protocol.EventReportFree)
	for _, q := range []*vhosttest.Queue{m.events, m.report} {
		m.must(m.fe.StartRing(q))
		m.must(m.fe.Enable(q, true))
	}
	m.expect(protocol.AnswerNoDriver)
	s.expect(protocol.EventCancel)
	m.must(m.events.Kick.Raise())
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()
}

// The driver at the port has taken the place of one that runs the device. When the port ends,
// that one is asked for its HELLO again.
func TestADriverOfTheDeviceComesBackWhenThePortEnds(t *testing.T) {
	for name, end := range map[string]func(m *machine, s *serial){
		"it is closed": func(m *machine, s *serial) {
			s.Close()
			s.requireClosed("")
		},
		"the machine is reset": func(m *machine, s *serial) {
			m.window.Boot()
			s.expect(protocol.EventChanged)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := mustBoot(t, device.Options{Port: device.PortReport})
			m.window.Boot() // the first is what the device begins with
			m.hello(protocol.StatusOK, 0)
			m.mustExchange() // so it has seen the first; two at once are one to it
			s := m.plug()
			s.say(portHello())
			end(m, s)
			m.hello(protocol.StatusOK, 0)
			m.mustExchange()
		})
	}
}

// What becomes of the queue for reports does not concern a request at the port.
func TestAQueueThatStopsLeavesTheRequestAtThePort(t *testing.T) {
	m := mustBoot(t, device.Options{Port: device.PortReport})
	s := m.plug()
	s.say(portHello())
	m.request(patience)
	g := s.expect(protocol.EventReportFree).Generation
	m.must(m.fe.Stop(m.report))
	s.say(last(g, protocol.MakeRecord(512, 9)))
	m.requireOK()
}

// A second driver, which cannot report, says nothing about the one that can.
func TestARefusalByThePortLeavesADriverThatReports(t *testing.T) {
	m := mustBoot(t, device.Options{Port: device.PortReport})
	m.hello(protocol.StatusOK, 0)
	s := m.plug()
	s.say(helloMessage(protocol.StatusUnsupported, 0))
	m.mustExchange()
	s.say(helloMessage(protocol.StatusContentMatters, 0)) // that concerns the guest
	m.request(patience)
	m.expect(protocol.AnswerRefused)
}

// A guest that relies on the contents of its free pages is not asked, also if it could report.
func TestARefusalForContentsByThePortCountsAtOnce(t *testing.T) {
	for name, hello := range map[string][]byte{
		"by its status": helloMessage(protocol.StatusContentMatters, protocol.FeaturePort),
		"by its features": helloMessage(protocol.StatusLockdown,
			protocol.FeaturePort|protocol.FeaturePagePoison),
	} {
		t.Run(name, func(t *testing.T) {
			m := mustBootWithPort(t, device.PortReport)
			s := m.plug()
			s.say(portHello(), hello)
			if state := m.dev.Status().DriverState; state != "refuses" {
				t.Fatalf("the driver is %q", state)
			}
			m.request(patience)
			m.expect(protocol.AnswerRefused)
		})
	}
}

// stuckConn is a port whose guest stopped in the middle of a message. A read ends only if
// there is a limit to it.
type stuckConn struct {
	net.Conn
	sent    []byte
	limited bool
	closed  chan struct{}
}

func (c *stuckConn) SetReadDeadline(end time.Time) error { c.limited = !end.IsZero(); return nil }
func (c *stuckConn) Write(p []byte) (int, error)         { return len(p), nil }
func (c *stuckConn) Close() error                        { close(c.closed); return nil }

func (c *stuckConn) Read(p []byte) (int, error) {
	if len(c.sent) > 0 {
		n := copy(p, c.sent)
		c.sent = c.sent[n:]
		return n, nil
	}
	if c.limited {
		return 0, os.ErrDeadlineExceeded
	}
	<-c.closed
	return 0, io.EOF
}

func TestAMessageThatDoesNotEndEndsThePort(t *testing.T) {
	for _, cut := range []int{1, protocol.HeaderSize, 100} {
		c := &stuckConn{sent: portHello()[:cut], closed: make(chan struct{})}
		err := device.New(device.Options{Port: device.PortReport}).ServePort(c)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %d bytes: %v", cut, err)
		}
	}
}
