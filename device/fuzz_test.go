// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// FuzzDriver runs a driver that does anything a guest can do, in the middle of
// a migration: the input decides its messages, rings, resets and accesses to the
// config space. The device must answer each request with ranges that QEMU accepts,
// mark every page that it writes in the dirty log, and serve a correct driver
// afterwards [FBPP-OP-1].
func FuzzDriver(f *testing.F) {
	le := binary.LittleEndian
	program := func(steps ...[]byte) []byte { return bytes.Join(steps, nil) }
	record := func(pfn uint64, order uint8) []byte {
		return le.AppendUint64(nil, uint64(protocol.MakeRecord(pfn, order)))
	}
	descriptor := func(queue, index byte, addr uint64, n uint32, flags, next uint16) []byte {
		return append([]byte{opDescriptor, queue, index}, vhosttest.EncodeDesc(addr, n, flags, next)...)
	}
	hello, ask := []byte{opHello, 0, 0}, []byte{opAsk, 100}
	report := func(flags byte, records byte) []byte { return []byte{opReport, flags, records} }
	f.Add(program(hello, ask, report(protocol.FlagLast, 1), record(512, 9)))
	drops := []byte{opHello, 0, byte(protocol.FeatureDropCache)}
	f.Add(program(drops, ask, report(protocol.FlagLast, 1), record(512, 9), hello, ask))
	f.Add(program(hello, ask, report(protocol.FlagResumed, 2), record(512, 9), record(300, 0), ask))
	f.Add(program(hello, ask, report(protocol.FlagLast, 1), record(1<<30, 0)))
	f.Add(program([]byte{opHello, 1, 1}, ask, []byte{opHello, 0, 0}, ask, []byte{opCancel}))
	f.Add(program(hello, ask, []byte{opRaw, 40}, make([]byte, 40)))
	// A loop, a length past the end, an address outside of memory.
	loop := program(descriptor(1, 0, base, 32, 1, 1), descriptor(1, 1, base, 32, 1, 0))
	f.Add(program(hello, ask, loop, []byte{opAvail, 1, 0, 0}))
	f.Add(program(hello, ask, descriptor(1, 0, base+4<<20-8, 4096, 0, 0), []byte{opAvail, 1, 0, 0}))
	f.Add(program(hello, ask, descriptor(1, 0, 1<<60, ^uint32(0), 2, 0), []byte{opAvail, 1, 0, 0}))
	f.Add(program(descriptor(0, 0, base+2<<20, 32, 4, 0), []byte{opAvail, 0, 0, 0}, hello, ask))
	f.Add(program(hello, ask, []byte{opIndex, 1, 0xe8, 3}, []byte{opIndex, 0, 0xff, 0xff}))
	restart := []byte{opRestart, 1, opRestart, 0}
	f.Add(program(hello, ask, restart, hello, ask, []byte{opReset}, ask))
	readConfig := []byte{opReadConfig, 0, 32, opReadConfig, 30, 200}
	f.Add(program([]byte{opWriteConfig, 0, 4, 1, 2, 3, 4}, readConfig))
	f.Add(program(hello, ask, []byte{opMemory}, ask, report(protocol.FlagLast, 1), record(512, 9)))
	// A HELLO that is still in reportq when eventq has been stopped.
	f.Add(program(hello, []byte{opHello, 0, 0}))
	accepts := append([]byte{opSupply, 255, opHello, 0, 16, opProgram, 0, 1, 2, 0, 0, 0, 0, 1},
		make([]byte, protocol.AcceptsSize-6)...)
	get := append([]byte{opProgram, 1, 1}, make([]byte, protocol.GetSize)...)
	get[3+36] = 200
	f.Add(program(accepts, get, get, ask, report(protocol.FlagLast, 1), record(512, 9)))
	f.Fuzz(func(t *testing.T, program []byte) {
		d := newFuzzedDriver(t)
		in := bytes.NewReader(program)
		for steps := 0; in.Len() > 0 && steps < 64; steps++ {
			d.step(in)
		}
		d.finish()
	})
}

// base is where the memory of the tests' guest begins.
const base = 1 << 20

// The first byte of a step says what the driver does. The bytes after it are the
// arguments in the comment.
const (
	opHello       = iota // status, features
	opReport             // flags, number of records, records; for the open request
	opRaw                // length, bytes of a message
	opDescriptor         // queue, index, a descriptor
	opAvail              // queue, head
	opIndex              // queue, index of the available ring
	opIndirect           // length, a table of descriptors
	opSupply             // length of an event buffer
	opKick               // queue
	opRestart            // queue: it is stopped, emptied and started
	opReset              // of the device
	opAsk                // deadline in units of 100 µs; a request of QEMU
	opCancel             //
	opReadConfig         // offset, length
	opWriteConfig        // offset, length, bytes
	opMemory             // a block of memory is removed and added again
	opProgram            // kind of message, nonce, its body; 0 is about the pushed program
	numOps
)

// fuzzedDriver is a machine whose driver follows no rules.
type fuzzedDriver struct {
	*machine
	migration  *vhosttest.Migration
	generation uint64 // of the last event that was understood
	givenUp    uint64 // number of the newest cancelled request
	program    protocol.Digest
}

func newFuzzedDriver(t *testing.T) *fuzzedDriver {
	// Memory is copied and compared in each run. So it is as small as the seeds'
	// records allow.
	d := &fuzzedDriver{machine: mustBoot(t, device.Options{
		WindowSize: 1 << 16, Cache: device.CacheDrop,
	}, 2<<20, 2<<20)}
	var err error
	d.migration, err = d.fe.StartMigration(d.guest, d.events, d.report)
	d.must(err)
	t.Cleanup(d.migration.Close)
	b, file := mustProgram(t, 1, 300)
	d.program = b.Offer.Digest
	d.must(d.dev.PushProgram(file, driver.AtNow))
	return d
}

// step does one step. Bytes after the end of the program are zero.
func (d *fuzzedDriver) step(in io.Reader) {
	next := func(n int) []byte {
		p := make([]byte, n)
		_, _ = io.ReadFull(in, p)
		return p
	}
	u16 := binary.LittleEndian.Uint16
	switch op := next(1)[0] % numOps; op {
	case opHello:
		p := next(2)
		d.send(helloMessage(protocol.Status(p[0]), protocol.Features(p[1])))
	case opReport:
		p := next(2)
		d.poll()
		records := make([]protocol.Record, p[1]%32)
		for i := range records {
			records[i] = protocol.Record(binary.LittleEndian.Uint64(next(8)))
		}
		d.send(reportMessage(d.generation, uint16(p[0]), len(records), records...))
	case opRaw:
		d.send(next(int(next(1)[0])))
	case opDescriptor:
		q, i := d.queue(next(1)), int(next(1)[0])%64
		d.guest.Write(q.Desc+uint64(i)*16, next(16))
	case opAvail:
		d.queue(next(1)).PutAvail(u16(next(2)))
	case opIndex:
		d.queue(next(1)).SetAvailIdx(u16(next(2)))
	case opIndirect:
		table := next(int(next(1)[0]))
		d.guest.Write(d.scratch, table)
		d.report.PutAvail(0)
		indirect := vhosttest.EncodeDesc(d.scratch, uint32(len(table)), vhosttest.DescIndirect, 0)
		d.guest.Write(d.report.Desc, indirect)
	case opSupply:
		n := uint32(next(1)[0])
		if addr := d.guest.Alloc(4096); n > 0 {
			if head, err := d.events.Add(vhosttest.Buffer{Addr: addr, Len: n, Write: true}); err == nil {
				d.buffers[head] = addr
			}
		}
	case opKick:
		d.must(d.queue(next(1)).Kick.Raise())
	case opRestart:
		d.restart(d.queue(next(1)))
	case opReset:
		d.mayRefuse(d.fe.TellSync(wire.ResetDevice, nil))
		d.restart(d.events)
		d.restart(d.report)
	case opAsk:
		d.settle()
		d.request(time.Duration(next(1)[0]) * 100 * time.Microsecond)
	case opCancel:
		d.cancel()
		d.givenUp = d.window.Asked()
	case opReadConfig:
		p := next(2)
		_, err := d.fe.GetConfig(uint32(p[0]), uint32(p[1]))
		d.mayRefuse(err)
	case opWriteConfig:
		p := next(2)
		d.mayRefuse(d.fe.SetConfig(uint32(p[0]), next(int(p[1]))))
	case opMemory:
		last := d.guest.Blocks[len(d.guest.Blocks)-1]
		d.must(d.fe.RemoveBlock(last))
		d.must(d.fe.AddBlock(last))
	case opProgram:
		d.sendProgram(next)
	}
}

// sendProgram sends a message about programs whose length is right.
func (d *fuzzedDriver) sendProgram(next func(int) []byte) {
	p := next(2)
	of := protocol.MessageAccepts + protocol.MessageType(p[0]%4)
	h := protocol.Header{Type: of}
	body := next(min(int(h.Size())-protocol.HeaderSize, 64))
	d.send(programMessage(of, uint64(p[1]), int(h.Size())-protocol.HeaderSize, func(q []byte) {
		copy(q, body)
		if of != protocol.MessageAccepts && body[0] == 0 {
			copy(q, d.program[:])
		}
	}))
}

func (d *fuzzedDriver) queue(p []byte) *vhosttest.Queue {
	return []*vhosttest.Queue{d.events, d.report}[p[0]%2]
}

// send posts a message and does not wait. A ring that is full or broken drops it.
func (d *fuzzedDriver) send(p []byte) {
	d.guest.Write(d.scratch, p)
	if _, err := d.report.Add(vhosttest.Buffer{Addr: d.scratch, Len: uint32(len(p))}); err == nil {
		d.must(d.report.Kick.Raise())
	}
}

// poll takes the events that have arrived and keeps the newest generation.
func (d *fuzzedDriver) poll() {
	for {
		used, ok := d.events.Poll()
		if !ok {
			return
		}
		addr, ok := d.buffers[used.Head]
		if !ok || used.Len != protocol.EventSize {
			continue
		}
		e, err := protocol.DecodeEvent(d.guest.Read(addr, protocol.EventSize))
		d.must(err)
		if e.Type == protocol.EventReportFree {
			d.generation = e.Generation
		}
	}
}

// restart stops a queue, whatever its state, and starts it empty.
func (d *fuzzedDriver) restart(q *vhosttest.Queue) {
	d.must(d.fe.Stop(q))
	q.Reset()
	d.must(d.fe.StartRing(q))
	d.must(d.fe.Enable(q, true))
}

// mayRefuse fails on any error but a refusal by the backend.
func (d *fuzzedDriver) mayRefuse(err error) {
	if err != nil && !errors.As(err, new(*vhosttest.Refused)) {
		d.t.Fatal(err)
	}
}

// settle waits for the answer to the newest request, and checks that QEMU would
// accept it.
func (d *fuzzedDriver) settle() {
	d.t.Helper()
	if d.window.Asked() == d.givenUp { // both are 0 before the first request
		return
	}
	a := d.window.Answer(patience)
	status, ranges := a.Status, a.Ranges
	if status >= protocol.NumAnswers || status != protocol.AnswerOK && len(ranges) > 0 {
		d.t.Fatalf("answered with %v and %d ranges", status, len(ranges))
	}
	end, sum := uint64(base)-1, uint64(0) // no range touches the one before
	for _, r := range ranges {
		if r.GPA <= end || r.Length == 0 || (r.GPA|r.Length)%4096 != 0 || r.Length > d.guest.End()-r.GPA {
			d.t.Fatalf("answered with %v after %#x", r, end)
		}
		end, sum = r.GPA+r.Length, sum+r.Length
	}
	if status == protocol.AnswerOK && sum != a.Bytes {
		d.t.Fatalf("the ranges have %d bytes, the answer says %d", sum, a.Bytes)
	}
}

// finish checks the dirty log, starts a correct driver and runs an exchange.
func (d *fuzzedDriver) finish() {
	d.t.Helper()
	d.settle()
	d.must(d.fe.Stop(d.events, d.report))
	if missing := d.migration.Missing(); len(missing) > 0 {
		pages := slices.Sorted(slices.Values(missing))
		d.t.Fatalf("the device wrote pages %v and did not log them", pages)
	}
	for _, q := range []*vhosttest.Queue{d.events, d.report} {
		q.Reset()
		d.must(d.fe.StartRing(q))
		d.must(d.fe.Enable(q, true))
	}
	clear(d.buffers)
	for range 4 {
		d.supply(protocol.EventSize)
	}
	d.must(d.events.Kick.Raise())
	d.hello(protocol.StatusOK, 0)
	d.mustExchange()
}
