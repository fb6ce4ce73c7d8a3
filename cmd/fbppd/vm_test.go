// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window/windowtest"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// patience bounds every wait of the tests. None of them depends on its value.
const patience = 20 * time.Second

// Where vhosttest puts the guest's memory, and its size in these tests.
const (
	guestBase = 1 << 20
	guestSize = 16 << 20
)

// vm plays QEMU and a guest's driver for an fbppd in another process.
type vm struct {
	t       *testing.T
	fe      *vhosttest.Frontend
	guest   *vhosttest.Guest
	eventq  *vhosttest.Queue
	reportq *vhosttest.Queue
	event   uint64 // address of the one event buffer
	message uint64 // address of the messages

	window *windowtest.Frontend
}

// mustRun realizes the device at path, and starts the driver.
func mustRun(t *testing.T, path string) *vm {
	t.Helper()
	v := newVM(t)
	v.dial(path)
	v.check(v.fe.Start(v.guest, 1<<32, v.eventq, v.reportq))
	v.supply()
	if e := v.next(); e.Type != protocol.EventChanged {
		t.Fatalf("first event %v, want EventChanged", e)
	}
	v.send(helloMessage(protocol.StatusOK, ""))
	return v
}

// newVM makes a guest whose device is not realized yet.
func newVM(t *testing.T) *vm {
	t.Helper()
	v := &vm{t: t, guest: must(vhosttest.NewGuest(guestSize))(t)}
	t.Cleanup(v.guest.Close)
	v.eventq = must(vhosttest.NewQueue(v.guest, protocol.EventQueue, 64))(t)
	t.Cleanup(v.eventq.Close)
	v.reportq = must(vhosttest.NewQueue(v.guest, protocol.ReportQueue, 64))(t)
	t.Cleanup(v.reportq.Close)
	v.event, v.message = v.guest.Alloc(protocol.EventSize), v.guest.Alloc(1<<20)
	return v
}

// dial realizes the device at path.
func (v *vm) dial(path string) {
	v.t.Helper()
	v.fe = must(vhosttest.Dial(path))(v.t)
	v.t.Cleanup(v.fe.Close)
	v.fe.Timeout = patience
	v.check(v.fe.Realize(vhosttest.Options{
		Extra:  1 << protocol.WindowProtocolFeature,
		Queues: []*vhosttest.Queue{v.eventq, v.reportq},
	}))
	v.openWindow()
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func (v *vm) check(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

func (v *vm) openWindow() {
	v.t.Helper()
	m := must(v.fe.Ask(protocol.WindowRequest, windowtest.Request(0)))(v.t)
	defer m.Close()
	v.window = windowtest.OpenReply(v.t, m.Payload, m.FDs)
}

// supply gives the device the event buffer.
func (v *vm) supply() {
	v.t.Helper()
	must(v.eventq.Add(vhosttest.Buffer{Addr: v.event, Len: protocol.EventSize, Write: true}))(v.t)
	v.check(v.eventq.Kick.Raise())
}

// next waits for an event.
func (v *vm) next() protocol.Event {
	v.t.Helper()
	must(v.eventq.Wait(patience))(v.t)
	e := must(protocol.DecodeEvent(v.guest.Read(v.event, protocol.EventSize)))(v.t)
	v.supply()
	return e
}

// send posts one message.
func (v *vm) send(p []byte) {
	v.t.Helper()
	v.guest.Write(v.message, p)
	v.sendBuffers(vhosttest.Buffer{Addr: v.message, Len: uint32(len(p))})
}

func (v *vm) sendBuffers(b ...vhosttest.Buffer) {
	v.t.Helper()
	must(v.reportq.Add(b...))(v.t)
	v.check(v.reportq.Kick.Raise())
	must(v.reportq.Wait(patience))(v.t)
}

// open makes a request, and returns the generation of its event.
func (v *vm) open() uint64 {
	v.t.Helper()
	v.window.Ask(patience)
	for {
		if e := v.next(); e.Type == protocol.EventReportFree {
			return e.Generation
		}
	}
}

// answer waits for the answer, and returns its status and the bytes in it.
func (v *vm) answer() (protocol.AnswerStatus, uint64) {
	v.t.Helper()
	a := v.window.Answer(patience)
	return a.Status, a.Bytes
}

// report makes a report of the given blocks, in one message.
func report(generation uint64, records ...protocol.Record) []byte {
	p := make([]byte, protocol.HeaderSize+len(records)*protocol.RecordSize+protocol.TrailerSize)
	h := protocol.Header{
		Type: protocol.MessageReport, Flags: protocol.FlagLast, Count: uint32(len(records)),
		Generation: generation, PageShift: 12,
	}
	h.Encode(p)
	for i, r := range records {
		binary.LittleEndian.PutUint64(p[protocol.HeaderSize+i*protocol.RecordSize:], uint64(r))
	}
	trailer := protocol.Trailer{Records: uint64(len(records)), WalkUS: 1, Holds: 1}
	trailer.Encode(p[len(p)-protocol.TrailerSize:])
	return p
}

// exchange makes a request and answers it with 2 MiB.
func (v *vm) exchange() {
	v.t.Helper()
	v.send(report(v.open(), protocol.MakeRecord(1024, 9)))
	if status, n := v.answer(); status != protocol.AnswerOK || n != 2<<20 {
		v.t.Fatalf("exchange ended with %v and %d bytes, want 2 MiB", status, n)
	}
}

// migrate starts a migration with a dirty log, and cancels it.
func (v *vm) migrate() {
	v.t.Helper()
	m := must(v.fe.StartMigration(v.guest, v.eventq, v.reportq))(v.t)
	defer m.Close()
	v.send(helloMessage(protocol.StatusOK, ""))
	m.Round()
	v.check(m.Cancel())
}
