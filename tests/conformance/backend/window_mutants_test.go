// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"encoding/binary"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

const windowRequest wire.Request = 0x4642

// relay copies between two hint windows: the device's, and another one that the frontend
// has instead. Its hooks change what is copied.
type relay struct {
	// seals are those of the frontend's window; 0: all.
	seals int
	// ask is called with a request before the device gets it.
	ask func(device []byte)
	// always makes each signal a new request.
	always bool
	// done is called with the answer before it is published in the frontend's window.
	done func(frontend []byte)
	// peek is called with a peek before it is published in the frontend's window.
	peek func(frontend []byte)
	// forward answers a peek at once, without the frontend's bits.
	forward bool
	// after is called when the answer has been published.
	after func(frontend []byte)
}

// Offsets of docs/window.md.
const (
	atAsk, atDeadline, atCancel = 0x40, 0x48, 0x50
	atDone, atStatus, atCount   = 0x80, 0x88, 0x90
	atWakeup, atHot, atGPA      = 0xa0, 0xd8, 0x1000

	atPeekNumber, atPeekAnswered = 0x140, 0x158
)

var le = binary.LittleEndian

// between returns a proxy that uses the relay.
func (r relay) between() *proxy {
	p := &proxy{}
	p.reply = func(c *proxied, m *wire.Message) bool {
		if wire.Request(m.Request) == windowRequest && len(m.FDs) == 3 {
			r.start(c, m)
		}
		return true
	}
	return p
}

// start replaces the descriptors in the message with the window by those of the relay.
func (r relay) start(c *proxied, m *wire.Message) {
	size := int(le.Uint64(m.Payload[8:]))
	device := mustMap(c, m.FDs[0], size)
	ask, done := c.keep(m.FDs[1]), c.keep(m.FDs[2])
	fd, err := unix.MemfdCreate("window", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil || unix.Ftruncate(fd, int64(size)) != nil {
		c.t.Errorf("make a window: %v", err)
	}
	seals := r.seals
	if seals == 0 {
		seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		c.t.Error(err)
	}
	c.own(fd)
	frontend := mustMap(c, fd, size)
	copy(frontend[:24], device[:24])
	myAsk, myDone := c.eventfd(), c.eventfd()
	m.Close()
	for _, fd := range []int{fd, myAsk, myDone} {
		dup, _ := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		m.FDs = append(m.FDs, dup)
	}
	count := uint64(0)
	peeked, answered := uint64(0), uint64(0)
	c.follow(100*time.Microsecond, func() {
		if n := le.Uint64(frontend[atPeekAnswered:]); n != answered {
			answered = n
			copy(device[0x1000:], frontend[0x1000:])
			copy(device[atPeekAnswered:0x168], frontend[atPeekAnswered:0x168])
			readEvent(myAsk)
			writeEvent(ask)
		}
		if n := le.Uint64(device[atPeekNumber:]); n != peeked {
			peeked = n
			copy(frontend[0x1000:], device[0x1000:])
			copy(frontend[atPeekNumber+8:], device[atPeekNumber+8:atPeekAnswered])
			if r.peek != nil {
				r.peek(frontend)
			}
			le.PutUint64(frontend[atPeekNumber:], n)
			if r.forward {
				le.PutUint64(device[atPeekAnswered:], n)
				writeEvent(ask)
			}
		}
		if readEvent(myAsk) {
			copy(device[0x48:0x58], frontend[0x48:0x58])
			count++
			if !r.always {
				count = le.Uint64(frontend[atAsk:])
			}
			le.PutUint64(device[atAsk:], count)
			if r.ask != nil {
				r.ask(device)
			}
			writeEvent(ask)
		}
		// A peek is signalled in the same way.
		if readEvent(done) && le.Uint64(device[atDone:]) != le.Uint64(frontend[atDone:]) {
			copy(frontend[atStatus:], device[atStatus:0x2000])
			if r.done != nil {
				r.done(frontend)
			}
			le.PutUint64(frontend[atDone:], le.Uint64(device[atDone:]))
			writeEvent(myDone)
			if r.after != nil {
				r.after(frontend)
			}
		}
	})
}

// mustMap maps a window. It is unmapped with the connection.
func mustMap(c *proxied, fd, size int) []byte {
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		c.t.Error(err)
	}
	c.atEnd = append(c.atEnd, func() { _ = unix.Munmap(mem) })
	return mem
}

func readEvent(fd int) bool {
	var b [8]byte
	n, _ := unix.Read(fd, b[:])
	return n == len(b)
}

func writeEvent(fd int) { _, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// windowMutants returns mutants of the free page device with defects in its window.
func windowMutants() []mutant {
	var first []int
	return []mutant{
		{defect: "an honest relay"},
		{defect: "a reserved feature is offered", rules: rules("FBPP-FEAT-1"),
			proxy: onReply(wire.GetFeatures, number(func(v uint64) uint64 { return v | 1<<3 }))},
		{defect: "the configuration can be written", rules: rules("FBPP-CFG-1"),
			proxy: onReply(wire.GetConfig, func(c *proxied, m *wire.Message) bool {
				if c.seen[wire.SetConfig] > 0 && len(m.Payload) > 12 {
					m.Payload[12] ^= 1
				}
				return true
			})},
		{defect: "the window is not sealed", rules: rules("FBPP-WIN-1"),
			proxy: relay{seals: unix.F_SEAL_SHRINK}.between},
		{defect: "a second connection has the window of the first", rules: rules("FBPP-WIN-2"),
			proxy: onReply(windowRequest, func(c *proxied, m *wire.Message) bool {
				if first == nil {
					for _, fd := range m.FDs {
						dup, _ := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
						first = append(first, dup)
						c.t.Cleanup(func() { unix.Close(dup) })
					}
					return true
				}
				m.Close()
				for _, fd := range first {
					dup, _ := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
					m.FDs = append(m.FDs, dup)
				}
				return true
			})},
		{defect: "ranges that touch are not joined", rules: rules("FBPP-WIN-4"),
			proxy: relay{done: splitRange}.between},
		{defect: "answers come after the deadline", rules: rules("FBPP-WIN-5"),
			proxy: relay{done: func([]byte) { time.Sleep(500 * time.Millisecond) }}.between},
		{defect: "the driver is given more time than there is", rules: rules("FBPP-WIN-5"),
			proxy: relay{ask: func(d []byte) {
				deadline := d[atDeadline:]
				le.PutUint64(deadline, le.Uint64(deadline)+uint64(time.Second))
			}}.between},
		{defect: "features that nobody named are agreed on", rules: rules("FBPP-WIN-9"),
			proxy: func() *proxy {
				return &proxy{reply: func(_ *proxied, m *wire.Message) bool {
					if wire.Request(m.Request) == windowRequest && len(m.Payload) == 24 {
						le.PutUint64(m.Payload[16:], 1<<5)
					}
					return true
				}}
			}},
		{defect: "a hot range is also free", rules: rules("FBPP-WIN-10"),
			proxy: relay{done: func(f []byte) { appendHot(f, le.Uint64(f[atGPA:])) }}.between},
		{defect: "a hot range lies within a page", rules: rules("FBPP-WIN-10"),
			proxy: relay{done: func(f []byte) { appendHot(f, 512) }}.between},
		{defect: "there are more hot ranges than slots", rules: rules("FBPP-WIN-10"),
			proxy: relay{done: func(f []byte) { le.PutUint64(f[atHot:], 1<<63) }}.between},
		{defect: "a discarded report leaves an order behind", rules: rules("FBPP-WIN-11"),
			proxy: relay{done: func(f []byte) {
				if le.Uint32(f[atStatus:]) != 0 {
					le.PutUint64(f[atHot:], 1)
				}
			}}.between},
		{defect: "each signal is a request", rules: rules("FBPP-WIN-6"),
			proxy: relay{always: true}.between},
		{defect: "giving up is ignored", rules: rules("FBPP-WIN-7"),
			proxy: relay{ask: func(d []byte) { le.PutUint64(d[atCancel:], 0) }}.between},
		{defect: "a published answer changes", rules: rules("FBPP-WIN-8"),
			proxy: relay{after: func(f []byte) {
				for i := range uint32(100) {
					le.PutUint32(f[atWakeup:], i)
					time.Sleep(2 * time.Millisecond)
				}
			}}.between},
		{defect: "every request ends well",
			proxy: relay{done: func(f []byte) { le.PutUint32(f[atStatus:], 0) }}.between,
			rules: rules("FBPP-INIT-2", "FBPP-MSG-1", "FBPP-MSG-2", "FBPP-HELLO-2", "FBPP-HELLO-3",
				"FBPP-REP-3", "FBPP-REP-4", "FBPP-REP-5", "FBPP-REP-6", "FBPP-REP-7", "FBPP-REP-8",
				"FBPP-REP-9", "FBPP-DROP-3", "FBPP-DROP-4", "FBPP-WIN-5")},
		{defect: "one malformed message of many is taken for good", rules: rules("FBPP-MSG-2"),
			proxy: func() *proxy { return goodAt(20).between() }},
		{defect: "one malformed answer of many is taken for good", rules: rules("FBPP-MSG-2"),
			proxy: func() *proxy { return goodAt(30).between() }},
		{defect: "a discarded report leaves a range behind",
			rules: rules("FBPP-REP-9", "FBPP-REP-3", "FBPP-MSG-1"),
			proxy: relay{done: func(f []byte) {
				if le.Uint32(f[atStatus:]) != 0 {
					le.PutUint64(f[atCount:], 1)
				}
			}}.between},
		{defect: "no report is good enough", rules: rules("FBPP-REP-12", "FBPP-REP-1"),
			proxy: relay{done: func(f []byte) {
				le.PutUint32(f[atStatus:], 5)
				le.PutUint64(f[atCount:], 0)
			}}.between},
		{defect: "a report counts for any request", rules: rules("FBPP-MSG-3", "FBPP-EV-4"),
			proxy: relay{done: func(f []byte) { le.PutUint64(f[atCount:], 0) }}.between},
	}
}

// appendHot adds a hot range of one page.
func appendHot(f []byte, gpa uint64) {
	slot := f[atGPA+16*le.Uint64(f[atCount:]):]
	le.PutUint64(slot, gpa)
	le.PutUint64(slot[8:], 4096)
	le.PutUint64(f[atHot:], 1)
}

// splitRange splits the first range into two.
func splitRange(f []byte) {
	n := le.Uint64(f[atCount:])
	if n == 0 || le.Uint64(f[atGPA+8:]) <= 4096 {
		return
	}
	copy(f[atGPA+16:atGPA+16+16*n], f[atGPA:atGPA+16*n])
	le.PutUint64(f[atGPA+8:], 4096)
	le.PutUint64(f[atGPA+16:], le.Uint64(f[atGPA:])+4096)
	le.PutUint64(f[atGPA+24:], le.Uint64(f[atGPA+24:])-4096)
	le.PutUint64(f[atCount:], n+1)
}

// goodAt is a relay that says of one request that it has ended well.
func goodAt(number int) relay {
	requests := 0
	return relay{done: func(f []byte) {
		if requests++; requests == number {
			le.PutUint32(f[atStatus:], 0)
		}
	}}
}

func TestDefectsOfTheFreePageDeviceAreFoundByTheirRules(t *testing.T) {
	for _, m := range windowMutants() {
		t.Run(m.defect, func(t *testing.T) {
			t.Parallel()
			dev := device.New(device.Options{Logger: zap.NewNop(), WindowSize: 1 << 16})
			c := backend.Config{
				SocketPath: serve(t, dev.VhostUser()), Profile: backend.FreePage(),
				Patience: time.Second,
			}
			want := report.Fail
			if m.proxy == nil { // changes nothing: every rule of the window is kept
				m.proxy, want, c.Patience = relay{}.between, report.Pass, long
				m.rules = rules("FBPP-WIN-[1-9]", "FBPP-WIN-1[01]", "FBPP-REP-*", "FBPP-MSG-*")
			}
			c.SocketPath = serveMutant(t, c.SocketPath, m.proxy())
			for id, r := range results(t, c, m.rules...) {
				if r.Outcome != want {
					t.Errorf("%s: %v %s", id, r.Outcome, r.Detail)
				}
			}
		})
	}
}
