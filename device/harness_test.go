// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window/windowtest"
	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// patience bounds every wait of the tests. None of them depends on its value,
// which is below what the fuzzer gives to one input.
const patience = 8 * time.Second

// TestMain fails when the tests leave descriptors or guest memory behind.
func TestMain(m *testing.M) { os.Exit(vhosttest.RunTests(m)) }

// machine is a virtual machine around a device: it plays QEMU with its
// migration thread, and the guest's driver.
type machine struct {
	t      testing.TB
	dev    *device.Device
	path   string
	blocks []uint64 // of the guest's memory, which begins at 1 MiB
	fe     *vhosttest.Frontend
	guest  *vhosttest.Guest
	events *vhosttest.Queue
	report *vhosttest.Queue

	window  *windowtest.Frontend
	buffers map[uint32]uint64 // eventq: buffer address by head
	scratch uint64            // memory for messages
}

const scratchSize = 1 << 20

// mustBoot starts a device, its server, QEMU and a driver, which has supplied
// event buffers but has not said hello. The guest's memory has blocks of the
// given sizes, or two of 8 MiB.
func mustBoot(t testing.TB, o device.Options, blocks ...uint64) *machine {
	t.Helper()
	return mustBootAs(t, o, func(*vhostuser.Device) {}, blocks...)
}

// mustBootAs is mustBoot for a device that change alters before it is served.
func mustBootAs(
	t testing.TB, o device.Options, change func(*vhostuser.Device), blocks ...uint64,
) *machine {
	t.Helper()
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.WindowSize == 0 {
		o.WindowSize = 1 << 20
	}
	if len(blocks) == 0 {
		blocks = []uint64{8 << 20, 8 << 20}
	}
	path := filepath.Join(t.TempDir(), "vhost.sock")
	m := &machine{t: t, dev: device.New(o), path: path, blocks: blocks}
	l, err := vhostuser.Listen(m.path)
	m.must(err)
	d := m.dev.VhostUser()
	change(d)
	srv, err := vhostuser.NewServer(d, o.Logger)
	m.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("serve: %v", err)
		}
		l.Close()
	})
	m.connect()
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// connect plays a QEMU with a new guest.
func (m *machine) connect() {
	m.t.Helper()
	var err error
	m.guest, err = vhosttest.NewGuest(m.blocks...)
	m.must(err)
	m.t.Cleanup(m.guest.Close)
	m.events = m.mustQueue(protocol.EventQueue)
	m.report = m.mustQueue(protocol.ReportQueue)
	m.scratch = m.guest.Alloc(scratchSize)
	m.buffers = make(map[uint32]uint64)
	m.attach()
	for range 4 {
		m.supply(protocol.EventSize)
	}
	m.must(m.events.Kick.Raise())
}

func (m *machine) mustQueue(index int) *vhosttest.Queue {
	m.t.Helper()
	q, err := vhosttest.NewQueue(m.guest, index, 64)
	m.must(err)
	m.t.Cleanup(q.Close)
	return q
}

// attach connects to the backend for the existing guest, as QEMU does when it
// reconnects. The guest's driver does not notice.
func (m *machine) attach() {
	m.t.Helper()
	var err error
	m.fe, err = vhosttest.Dial(m.path)
	m.must(err)
	m.t.Cleanup(m.fe.Close)
	m.fe.Timeout = patience
	m.must(m.fe.Realize(vhosttest.Options{
		Extra:  1 << protocol.WindowProtocolFeature,
		Queues: []*vhosttest.Queue{m.events, m.report},
	}))
	m.fetchWindow()
	m.must(m.fe.Start(m.guest, 1<<32, m.events, m.report))
}

func (m *machine) fetchWindow() {
	m.t.Helper()
	m.fetchWindowWith(protocol.WindowFeatureOutcome | protocol.WindowFeaturePeek |
		protocol.WindowFeatureClasses)
}

// fetchWindowWith fetches a window for a frontend that has these features.
func (m *machine) fetchWindowWith(features uint64) {
	m.t.Helper()
	reply, err := m.fe.Ask(protocol.WindowRequest, windowtest.Request(features))
	m.must(err)
	defer reply.Close()
	m.window = windowtest.OpenReply(m.t, reply.Payload, reply.FDs)
}

// mustDisconnect waits until the device has noticed that the frontend is gone.
func (m *machine) mustDisconnect() {
	m.t.Helper()
	for {
		changed := m.dev.Changed()
		if !m.dev.Status().Connected {
			return
		}
		select {
		case <-changed:
		case <-time.After(patience):
			m.t.Fatal("the device does not notice that its frontend is gone")
		}
	}
}

// supply gives the device an event buffer of n bytes.
func (m *machine) supply(n uint32) {
	m.t.Helper()
	addr := m.guest.Alloc(uint64(n))
	head, err := m.events.Add(vhosttest.Buffer{Addr: addr, Len: n, Write: true})
	m.must(err)
	m.buffers[head] = addr
}

// request asks as the migration thread does, and returns without waiting.
func (m *machine) request(timeout time.Duration) {
	m.t.Helper()
	m.window.Ask(timeout)
}

// cancel gives the newest request up.
func (m *machine) cancel() {
	m.t.Helper()
	m.window.Cancel()
}

// answer waits for the newest request's answer.
func (m *machine) answer() (protocol.AnswerStatus, []freeset.Range) {
	m.t.Helper()
	a := m.window.Answer(patience)
	return a.Status, a.Ranges
}

// expect fails unless the newest request ends with that status and no ranges.
func (m *machine) expect(want protocol.AnswerStatus) {
	m.t.Helper()
	status, ranges := m.answer()
	if status != want || len(ranges) != 0 {
		m.t.Fatalf("request ended with %v and %d ranges, want %v and none; last: %+v",
			status, len(ranges), want, m.dev.Status().Last)
	}
}

// event waits for the next event and supplies another buffer.
func (m *machine) event() protocol.Event {
	m.t.Helper()
	used, err := m.events.Wait(patience)
	m.must(err)
	if used.Len != protocol.EventSize {
		m.t.Fatalf("event of %d bytes", used.Len)
	}
	e, err := protocol.DecodeEvent(m.guest.Read(m.buffers[used.Head], protocol.EventSize))
	m.must(err)
	delete(m.buffers, used.Head)
	m.supply(protocol.EventSize)
	return e
}

// expectEvent fails unless the next event has that type.
func (m *machine) expectEvent(want protocol.EventType) protocol.Event {
	m.t.Helper()
	e := m.event()
	if e.Type != want {
		m.t.Fatalf("event %v, want %v", e, want)
	}
	return e
}

// post sends a message and waits until the device has used it. cuts are the
// lengths of its buffers; what is left goes into one more.
func (m *machine) post(p []byte, cuts ...int) {
	m.t.Helper()
	if len(p) > scratchSize {
		m.t.Fatalf("message of %d bytes", len(p))
	}
	m.guest.Write(m.scratch, p)
	var bufs []vhosttest.Buffer
	at := 0
	for _, n := range append(cuts, len(p)) {
		if n = min(n, len(p)-at); n > 0 {
			bufs = append(bufs, vhosttest.Buffer{Addr: m.scratch + uint64(at), Len: uint32(n)})
			at += n
		}
	}
	m.postBuffers(bufs...)
}

func (m *machine) postBuffers(bufs ...vhosttest.Buffer) {
	m.t.Helper()
	_, err := m.report.Add(bufs...)
	m.must(err)
	m.must(m.report.Kick.Raise())
	used, err := m.report.Wait(patience)
	m.must(err)
	if used.Len != 0 {
		m.t.Fatalf("device says that it wrote %d bytes", used.Len)
	}
}

// hello takes the event by which the device asks for a HELLO, and sends a HELLO.
func (m *machine) hello(status protocol.Status, features protocol.Features) {
	m.t.Helper()
	m.expectEvent(protocol.EventChanged)
	m.post(helloMessage(status, features))
}

func helloMessage(status protocol.Status, features protocol.Features) []byte {
	p := make([]byte, protocol.HeaderSize+protocol.HelloSize)
	h := protocol.Header{Type: protocol.MessageHello, Status: status, PageShift: 12}
	h.Encode(p)
	b := protocol.Hello{
		Features: features, MaxOrder: 10, RAMBytes: 16 << 20,
		Release: "Linux test", Reason: "a reason",
	}
	b.Encode(p[protocol.HeaderSize:])
	return p
}

func startedMessage(generation uint64) []byte {
	p := make([]byte, protocol.HeaderSize)
	h := protocol.Header{Type: protocol.MessageStarted, Generation: generation, PageShift: 12}
	h.Encode(p)
	return p
}

// reportMessage makes a report; with LAST its trailer counts total records.
func reportMessage(generation uint64, flags uint16, total int, records ...protocol.Record) []byte {
	h := protocol.Header{
		Type: protocol.MessageReport, Flags: flags, Count: uint32(len(records)),
		Generation: generation, PageShift: 12,
	}
	p := make([]byte, protocol.HeaderSize)
	h.Encode(p)
	for _, r := range records {
		p = binary.LittleEndian.AppendUint64(p, uint64(r))
	}
	if flags&protocol.FlagLast != 0 {
		var t [protocol.TrailerSize]byte
		trailer := protocol.Trailer{Records: uint64(total), WalkUS: 11, HoldMaxUS: 7, Holds: 2}
		trailer.Encode(t[:])
		p = append(p, t[:]...)
	}
	return p
}

// last makes a whole report.
func last(generation uint64, records ...protocol.Record) []byte {
	return reportMessage(generation, protocol.FlagLast, len(records), records...)
}

// block512 is what a report of MakeRecord(512, 9) says is free.
func block512() []freeset.Range { return []freeset.Range{{GPA: 512 << 12, Length: 512 << 12}} }

// mustExchange runs a whole migration's request and checks its answer.
func (m *machine) mustExchange() {
	m.t.Helper()
	m.request(patience)
	e := m.expectEvent(protocol.EventReportFree)
	m.post(last(e.Generation, protocol.MakeRecord(512, 9)))
	status, ranges := m.answer()
	if status != protocol.AnswerOK || !slices.Equal(ranges, block512()) {
		m.t.Fatalf("exchange ended with %v and %v; last: %+v",
			status, ranges, m.dev.Status().Last)
	}
}
