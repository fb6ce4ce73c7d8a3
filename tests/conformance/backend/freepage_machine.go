// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

var le = binary.LittleEndian

// freePageMachine is a machine whose frontend has a hint window, and whose
// driver has supplied buffers for events.
type freePageMachine struct {
	*machine
	events  *vhosttest.Queue
	buffers map[uint32]uint64 // events: address by head
	seen    []protocol.Event  // all that were decoded
	message uint64            // memory for messages

	window []byte
	fds    [3]int // window, ask, done
	asked  uint64
}

// Private request and protocol feature of docs/window.md.
const (
	windowFeature = 48
	windowRequest = 0x4642
)

// Offsets of docs/window.md.
const (
	winAsk, winDeadline, winCancel = 0x40, 0x48, 0x50
	winDone, winStatus             = 0x80, 0x88
	winCount, winBytes             = 0x90, 0x98
	winRanges                      = 0x1000
)

const (
	messageRoom = 256 << 10
	deadline    = 3 * time.Second // of requests
)

// memRange is a range of the window.
type memRange struct{ GPA, Length uint64 }

// bootFreePage boots up to a driver that has not said HELLO.
func (s *session) bootFreePage() *freePageMachine { return s.bootFreePageOf(nil) }

// bootFreePageOf is bootFreePage with the payload that asks for the window.
func (s *session) bootFreePageOf(request []byte) *freePageMachine {
	window := vhosttest.Options{Extra: 1 << windowFeature}
	m := &freePageMachine{
		machine: s.boot(bootOptions{stopped: true, Options: window}),
		buffers: make(map[uint32]uint64),
	}
	s.need(m.f.Negotiated.Has(windowFeature), "backend does not offer the hint window")
	m.events = m.queues[protocol.EventQueue]
	m.message = m.g.Alloc(messageRoom)
	m.fetchWindow(request)
	m.must(m.f.Start(m.g, m.features, m.queues...), "start the device")
	for range 4 {
		m.supply(protocol.EventSize)
	}
	return m
}

// bootDriver boots up to a driver that has said HELLO. The device may send a request for
// HELLO before or after that.
func (s *session) bootDriver() *freePageMachine {
	m := s.bootFreePage()
	m.post(helloMessage(protocol.StatusOK, 0))
	return m
}

// fetchWindow asks for the window with a payload: none is a request of version 1.
func (m *freePageMachine) fetchWindow(request []byte) {
	reply, err := m.f.Ask(windowRequest, request)
	m.must(err, "ask for the window")
	m.Cleanup(reply.Close)
	p := reply.Payload
	if len(p) < 16 || len(reply.FDs) != 3 {
		m.Failf("the window's reply has %d bytes and %d descriptors", len(p), len(reply.FDs))
	}
	size := le.Uint64(p[8:])
	v, flags := le.Uint32(p), le.Uint32(p[4:])
	if v == 0 || v > 2 || request == nil && v != 1 || len(p) != 8+8*int(v) {
		m.Failf("the window's reply has %d bytes and says version %d", len(p), v)
	}
	if flags != 0 || size < 8192 || size > 1<<32 {
		m.Failf("the window's reply says version %d, flags %#x and %d bytes", v, flags, size)
	}
	for i := range m.fds {
		fd := reply.TakeFD(i)
		m.Cleanup(func() { unix.Close(fd) })
		m.fds[i] = fd
	}
	m.window, err = unix.Mmap(m.fds[0], 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	m.must(err, "map the window")
	m.Cleanup(func() { _ = unix.Munmap(m.window) })
}

// supply gives the device a buffer for events and returns its address.
func (m *freePageMachine) supply(n uint32) uint64 {
	addr := m.g.Alloc(uint64(n))
	head, err := m.events.Add(vhosttest.Buffer{Addr: addr, Len: n, Write: true})
	if err != nil {
		m.Errorf("%v", err)
	}
	m.buffers[head] = addr
	if err := m.events.Kick.Raise(); err != nil {
		m.Errorf("%v", err)
	}
	return addr
}

// restartEvents restarts eventq without buffers, then supplies a single one, and returns the
// event in it. The device has forgotten its driver, and has to say so in this buffer.
func (m *freePageMachine) restartEvents() protocol.Event {
	_, err := m.f.StopRing(m.events)
	m.must(err, "stop eventq")
	m.events.Reset()
	clear(m.buffers)
	m.must(m.f.StartRing(m.events), "start eventq")
	m.must(m.f.Enable(m.events, true), "enable eventq")
	m.supply(protocol.EventSize)
	return m.take(m.wait())
}

// dropBuffers starts eventq anew, without buffers.
func (m *freePageMachine) dropBuffers() {
	if e := m.restartEvents(); e.Type != protocol.EventChanged {
		m.Failf("a device whose eventq was stopped sends %v", e)
	}
	m.post(helloMessage(protocol.StatusOK, 0))
}

func (m *freePageMachine) wait() vhosttest.Used {
	u, err := m.events.Wait(m.cfg.Patience)
	m.must(err, "wait for an event")
	return u
}

// take decodes the event of a used buffer.
func (m *freePageMachine) take(u vhosttest.Used) protocol.Event {
	addr, ok := m.buffers[u.Head]
	if !ok {
		m.Failf("the device used head %d of eventq, which is not outstanding", u.Head)
	}
	delete(m.buffers, u.Head)
	if u.Len != protocol.EventSize {
		m.Failf("the device says that an event has %d bytes", u.Len)
	}
	e, err := protocol.DecodeEvent(m.g.Read(addr, protocol.EventSize))
	m.must(err, "decode an event")
	m.seen = append(m.seen, e)
	return e
}

// event waits for the next event, and supplies another buffer.
func (m *freePageMachine) event() protocol.Event {
	e := m.take(m.wait())
	m.supply(protocol.EventSize)
	return e
}

// await waits for an event of that type and ignores others.
func (m *freePageMachine) await(want protocol.EventType) protocol.Event {
	for range 10 {
		if e := m.event(); e.Type == want {
			return e
		}
	}
	m.Failf("no event %v came among 10", want)
	return protocol.Event{}
}

// noEvent fails if an event of that type comes within a while.
func (m *freePageMachine) noEvent(unwanted protocol.EventType) {
	for end := time.Now().Add(quiet); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if u, ok := m.events.Poll(); ok {
			if e := m.take(u); e.Type == unwanted {
				m.Failf("the device sent %v", e)
			}
		}
	}
}

// post sends a message and waits until the device has used it.
func (m *freePageMachine) post(p []byte) {
	if len(p) > messageRoom {
		m.Errorf("message of %d bytes", len(p))
	}
	m.g.Write(m.message, p)
	m.postBuffers(vhosttest.Buffer{Addr: m.message, Len: uint32(len(p))})
}

func (m *freePageMachine) postBuffers(bufs ...vhosttest.Buffer) {
	head, err := m.q.Add(bufs...)
	if err != nil {
		m.Errorf("%v", err)
	}
	m.kick()
	u, err := m.q.Wait(m.cfg.Patience)
	m.must(err, "wait until a message is used")
	if u.Head != head || u.Len != 0 {
		m.Failf("a message was used as %+v, it has head %d and the length has to be 0", u, head)
	}
}

// ask asks as a migration does.
func (m *freePageMachine) ask() { m.askFor(deadline) }

func (m *freePageMachine) askFor(d time.Duration) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		m.Errorf("read the clock: %v", err)
	}
	m.asked++
	le.PutUint64(m.window[winDeadline:], uint64(ts.Nano()+d.Nanoseconds()))
	le.PutUint64(m.window[winAsk:], m.asked)
	m.signal() // the system call orders the stores before it
}

// cancel gives the request up.
func (m *freePageMachine) cancel() {
	le.PutUint64(m.window[winCancel:], m.asked)
	m.signal()
}

func (m *freePageMachine) signal() {
	if _, err := unix.Write(m.fds[1], []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		m.Errorf("signal ask: %v", err)
	}
}

// Statuses of docs/window.md.
const (
	fpOK, fpDisabled, fpNoDriver, fpRefused = 0, 1, 2, 3
	fpTimeout, fpBadReport, fpCancelled     = 4, 5, 6
)

// answer is what the window says of a request.
type answer struct {
	status uint32
	ranges []memRange
	bytes  uint64
}

// String implements fmt.Stringer.
func (a answer) String() string { return fmt.Sprintf("%d with the ranges %x", a.status, a.ranges) }

// answer waits for the answer to the newest request, as the frontend does: it
// looks whenever done is signalled.
func (m *freePageMachine) answer() answer {
	end := time.Now().Add(deadline + m.cfg.Patience)
	for le.Uint64(m.window[winDone:]) != m.asked {
		left := time.Until(end)
		if left <= 0 {
			m.Failf("request %d was not answered; done_generation is %d",
				m.asked, le.Uint64(m.window[winDone:]))
		}
		done := []unix.PollFd{{Fd: int32(m.fds[2]), Events: unix.POLLIN}}
		n, err := unix.Poll(done, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			m.Errorf("poll done: %v", err)
		}
		if n > 0 {
			var b [8]byte
			_, _ = unix.Read(m.fds[2], b[:])
		}
	}
	return m.readAnswer()
}

func (m *freePageMachine) readAnswer() answer {
	a := answer{status: le.Uint32(m.window[winStatus:]), bytes: le.Uint64(m.window[winBytes:])}
	n := le.Uint64(m.window[winCount:])
	if most := (uint64(len(m.window)) - winRanges) / 16; n > most {
		m.Failf("range_count is %d, and the window has room for %d", n, most)
	}
	for i := range n {
		p := m.window[winRanges+16*i:]
		a.ranges = append(a.ranges, memRange{le.Uint64(p), le.Uint64(p[8:])})
	}
	return a
}

// expectStatus fails unless the newest request ends with that status and no
// ranges.
func (m *freePageMachine) expectStatus(want uint32, why string) {
	if a := m.answer(); a.status != want || len(a.ranges) > 0 {
		m.Failf("%s: the request ended with status %v, not %d and none", why, a, want)
	}
}

// expectRanges fails unless the newest request ends well, with these ranges.
func (m *freePageMachine) expectRanges(want ...memRange) {
	if a := m.answer(); a.status != fpOK || !slices.Equal(a.ranges, want) {
		m.Failf("the request ended with status %v, not 0 and %x", a, want)
	}
}

// exchange makes a request, and has the driver answer it correctly.
func (m *freePageMachine) exchange() {
	m.ask()
	m.post(lastReport(m.await(protocol.EventReportFree).Generation, block(1), block(3)))
	m.expectRanges(blockRange(1), blockRange(3))
}

// configChanged waits for the backend to tell of a change of config space.
func (m *freePageMachine) configChanged() {
	m.need(m.f.Channel != nil, "backend does not offer BACKEND_REQ")
	msg, err := m.f.Channel.Next(m.cfg.Patience)
	m.must(err, "wait for a configuration change notification")
	defer msg.Close()
	if msg.Request != uint32(wire.BackendConfigChange) {
		m.Failf("the backend sent %v", wire.BackendRequest(msg.Request))
	}
	m.must(m.f.Channel.Ack(msg, 0), "acknowledge the notification")
}
