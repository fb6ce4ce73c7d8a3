// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// fault says what a scripted driver does wrong. A driver with the empty fault does
// nothing wrong.
type fault string

// Shape of the scripted driver.
const (
	queueSize   = 64
	eventCount  = 4
	slotCount   = 4 // too few for a whole answer
	slotSize    = 64 << 10
	firstFree   = 0x500 // page frame of the guest's second block of memory, which is free
	blockOrder  = 8
	scriptOrder = 10
)

// script is a driver in a goroutine. It answers a request with three reports. A slot
// is the memory of one message; the driver sends when a slot is free.
type script struct {
	t              *testing.T
	fault          fault
	memory         *vhosttest.Guest
	events, report *vhosttest.Queue
	quit           chan struct{}
	done           sync.WaitGroup
	frozen         atomic.Bool // the driver stops the guest: tick does not write
	answered       atomic.Int32

	buffers  map[uint32]uint64 // address by descriptor
	slots    []uint64          // addresses of those that are free
	inFlight map[uint32]uint64 // slots of messages that the device has, by descriptor
	request  protocol.Event    // the request that is answered now
	sent     int               // how many messages of the answer were sent; negative: all
	answers  int
	dead     bool
	noise    *rand.Rand    // unless nil, random messages are sent in between
	greet    bool          // a HELLO waits for a slot
	lastSent time.Time     // when the newest message was sent
	spare    uint64        // memory that is not free
	nonce    uint64        // of its session
	known    atomic.Bool   // the device knows programs
	wants    *protocol.Get // of the object that is fetched; nil: none
	asked    time.Time     // when it was asked for
	outbox   [][]byte      // messages about programs that wait for a slot
}

func newScript(g *guest) (*script, error) {
	s := &script{t: g.t, fault: g.fault, memory: g.memory}
	for i, q := range map[int]**vhosttest.Queue{
		protocol.EventQueue: &s.events, protocol.ReportQueue: &s.report,
	} {
		var err error
		if *q, err = vhosttest.NewQueue(g.memory, i, queueSize); err != nil {
			return nil, err
		}
		// The format of the ring has to be right before there are buffers.
		(*q).Negotiate(wire.Features(g.features))
	}
	for range slotCount {
		s.slots = append(s.slots, g.memory.Alloc(slotSize))
	}
	s.spare = g.memory.Alloc(vhosttest.PageSize)
	if seed, ok := strings.CutPrefix(string(s.fault), "talks nonsense "); ok {
		s.noise = rand.New(rand.NewPCG(0, uint64(seed[0])))
	}
	s.buffers = make(map[uint32]uint64)
	s.inFlight = make(map[uint32]uint64)
	s.populate()
	if s.fault == "has spoken to an earlier device" {
		s.report.Warp(5)
		s.request.Generation, s.sent = 99, 0 // it still answers the request of that device
	}
	return s, nil
}

func (s *script) queues() []*vhosttest.Queue { return []*vhosttest.Queue{s.events, s.report} }

// populate gives the device event buffers.
func (s *script) populate() {
	s.sent = -1
	buffers := eventCount
	if s.fault == "leaves one event buffer" {
		buffers = 1
	}
	for range buffers {
		s.offer(s.memory.Alloc(vhosttest.PageSize))
	}
}

func (s *script) offer(at uint64) {
	n := uint32(protocol.MinProgramBuffer)
	switch {
	case s.fault == "short event buffers" && len(s.buffers) == 0:
		n = 16
	case s.fault == "short event buffers for programs":
		n = protocol.MinProgramBuffer - 1
	}
	head, err := s.events.Add(vhosttest.Buffer{Addr: at, Len: n, Write: true})
	if err != nil {
		s.t.Error(err)
	}
	s.buffers[head] = at
}

// reset empties the queues, as after a reset of the device.
func (s *script) reset() {
	s.events.Reset()
	s.report.Reset()
	for _, slot := range s.inFlight {
		s.slots = append(s.slots, slot)
	}
	clear(s.buffers)
	clear(s.inFlight)
	s.populate()
}

func (s *script) start() {
	quit := make(chan struct{})
	s.quit = quit
	s.done.Go(func() { s.run(quit) })
}

// stop ends the goroutine, if there is one.
func (s *script) stop() {
	if s.quit == nil {
		return
	}
	close(s.quit)
	s.done.Wait()
	s.quit = nil
}

func (s *script) close() {
	s.events.Close()
	s.report.Close()
}

func (s *script) run(quit <-chan struct{}) {
	s.kick(s.events)
	for {
		select {
		case <-quit:
			return
		default:
		}
		// Both queues are polled: to wait for each would need two more goroutines.
		_ = s.events.Call.Wait(time.Millisecond)
		s.reap()
		for {
			used, ok := s.events.Poll()
			if !ok {
				break
			}
			s.used(used)
		}
		s.answer()
		s.meddle()
		s.frozen.Store(s.fault == "stops the guest" && s.report.Outstanding() > 0)
	}
}

func (s *script) kick(q *vhosttest.Queue) {
	if err := q.Kick.Raise(); err != nil {
		s.t.Error(err)
	}
}

// reap takes back the slots of messages that were used.
func (s *script) reap() {
	for {
		used, ok := s.report.Poll()
		if !ok {
			return
		}
		s.slots = append(s.slots, s.inFlight[used.Head])
		delete(s.inFlight, used.Head)
	}
}

// used handles an event buffer that the device has used.
func (s *script) used(used vhosttest.Used) {
	at := s.buffers[used.Head]
	p := s.memory.Read(at, protocol.MinProgramBuffer)
	delete(s.buffers, used.Head)
	s.memory.Write(at, make([]byte, protocol.EventSize))
	if used.Len < protocol.EventSize {
		switch s.fault {
		case "keeps buffers without an event":
			return
		case "takes a buffer without an event for one":
			used.Len = protocol.EventSize
		}
	}
	e, err := protocol.DecodeEvent(p[:used.Len])
	if err == nil {
		known := e.Type >= protocol.EventReportFree && e.Type <= protocol.EventChanged
		if !known && s.fault == "keeps buffers of unknown events" {
			return
		}
		if e.Type.IsProgram() && used.Len > protocol.EventSize {
			s.program(p[:used.Len])
		} else {
			s.event(e)
		}
	}
	s.offer(at)
	s.kick(s.events)
}

func (s *script) event(e protocol.Event) {
	switch {
	case s.dead:
	case e.Type == protocol.EventReportFree:
		s.request, s.sent = e, 0
		if s.fault == "drops cache for ever" && e.DropsCache() && e.DropMS == math.MaxUint32 {
			s.sent = -1
		}
		if s.fault == "breaks off at its deadline" && e.BudgetEntries == 1 {
			s.sent = -1
		}
	case e.Type == protocol.EventCancel:
		if e.Generation == s.request.Generation || s.fault == "takes any cancel for its own" {
			s.sent = -1
		}
		s.dead = s.fault == "is dead after a cancel"
	case e.Type == protocol.EventChanged && e.Flags&protocol.EventHelloWanted != 0:
		s.sent = -1
		s.greet = s.fault != "does not answer when a hello is wanted"
	case s.fault == "takes an unknown event for a request":
		s.request, s.sent = e, 0
	}
}

// answer sends messages while slots are free. The last slot is kept for a HELLO.
func (s *script) answer() {
	if s.greet && len(s.slots) > 0 {
		s.greet = false
		s.hello()
		s.accepts()
	}
	s.get()
	for len(s.outbox) > 0 && len(s.slots) > 1 {
		s.send(s.outbox[0])
		s.outbox = s.outbox[1:]
	}
	for s.sent >= 0 && len(s.slots) > 1 {
		s.send(s.next())
	}
	if s.noise != nil && len(s.slots) > 0 {
		s.send(s.nonsense())
	}
}

// nonsense returns a random message. Most have a header that is valid in part.
func (s *script) nonsense() []byte {
	p := make([]byte, protocol.HeaderSize+s.noise.IntN(300))
	for i := range p {
		p[i] = byte(s.noise.Uint32())
	}
	if s.noise.IntN(4) > 0 {
		h := protocol.Header{
			Type:       protocol.MessageType(1 + s.noise.IntN(3)),
			Flags:      uint16(s.noise.IntN(8)),
			Count:      uint32(s.noise.IntN(20)),
			Generation: s.request.Generation,
			PageShift:  uint8(10 + s.noise.IntN(8)),
		}
		if s.noise.IntN(8) == 0 {
			h.Count = s.noise.Uint32()
		}
		h.Encode(p)
		if size := h.Size(); size < slotSize && s.noise.IntN(4) > 0 {
			p = append(p, make([]byte, size)...)[:size]
		}
	}
	return p
}

// next returns the next message of the answer.
func (s *script) next() []byte {
	h := protocol.Header{
		Type: protocol.MessageStarted, Generation: s.request.Generation, PageShift: 12,
	}
	switch s.fault {
	case "has large pages":
		h.PageShift = 16
	case "starts with a status":
		if s.sent == 0 {
			h.Status = protocol.StatusFailed
		}
	}
	n := s.sent
	s.sent++
	if n == 0 && s.fault != "starts without a word" {
		return message(h, nil, nil)
	} else if n == 0 {
		n = 1
		s.sent++
	}
	h.Type = protocol.MessageReport
	resumed := s.answers%2 == 1
	records := []protocol.Record{protocol.MakeRecord(firstFree+uint64(n-1)<<blockOrder, blockOrder)}
	if n > 1 && resumed {
		h.Flags |= protocol.FlagResumed
		records = append(records, protocol.MakeRecord(firstFree, blockOrder)) // for the second time
	}
	if n < 3 {
		return s.spoil(h, records, nil)
	}
	h.Flags |= protocol.FlagLast
	trailer := &protocol.Trailer{Records: 3, WalkUS: 10, HoldMaxUS: 5, Holds: 2}
	if resumed {
		trailer.Records += 2
	}
	if s.request.DropsCache() {
		trailer.Dropped = min(s.request.DropMiB, 10) // pages of any size
		trailer.DropUS = 1
	}
	s.sent = -1
	s.answers++
	s.answered.Add(1)
	return s.spoil(h, records, trailer)
}

// hello sends a HELLO.
func (s *script) hello() {
	h := protocol.Header{Type: protocol.MessageHello, PageShift: 12}
	body := protocol.Hello{
		MaxOrder: scriptOrder, RAMBytes: 8 << 20, Release: "script",
		Features: protocol.FeaturePrograms | protocol.FeatureDropCache,
	}
	if s.fault == "takes no programs" {
		body.Features &^= protocol.FeaturePrograms
	}
	switch s.fault {
	case "hides that contents matter":
		body.Features |= protocol.FeaturePagePoison
	case "reports higher orders than it says":
		body.MaxOrder = blockOrder - 1
	case "refuses":
		h.Status, body.Reason = protocol.StatusUnsupported, "it is a test"
	case "numbers its hello":
		h.Generation = 7
	}
	p := append(message(h, nil, nil), make([]byte, protocol.HelloSize)...)
	body.Encode(p[protocol.HeaderSize:])
	switch s.fault {
	case "fills a reserved field":
		p[25] = 1
	case "fills a reserved field of its hello":
		p[protocol.HeaderSize+5] = 1
	}
	s.send(p)
}

// message encodes a message.
func message(h protocol.Header, records []protocol.Record, trailer *protocol.Trailer) []byte {
	h.Count = uint32(len(records))
	p := make([]byte, protocol.HeaderSize)
	h.Encode(p)
	for _, r := range records {
		p = binary.LittleEndian.AppendUint64(p, uint64(r))
	}
	if trailer != nil {
		p = append(p, make([]byte, protocol.TrailerSize)...)
		trailer.Encode(p[len(p)-protocol.TrailerSize:])
	}
	return p
}

// send puts a message on reportq, as a chain of two descriptors.
func (s *script) send(p []byte) {
	slot := s.slots[0]
	s.slots = slices.Delete(s.slots, 0, 1)
	s.memory.Write(slot, p)
	n := uint32(len(p))
	chain := []vhosttest.Buffer{{Addr: slot, Len: 24}, {Addr: slot + 24, Len: n - 24}}
	if s.fault == "messages with a writable part" && n == protocol.HeaderSize {
		chain = append(chain, vhosttest.Buffer{Addr: s.spare, Len: 8, Write: true})
	}
	head, err := s.report.Add(chain...)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.inFlight[head] = slot
	s.kick(s.report)
	s.lastSent = time.Now()
	if s.fault == "breaks its ring" && s.answers == 2 {
		s.report.SetDesc(queueSize-1, slot, n, vhosttest.DescNext, queueSize)
		s.report.PutAvail(queueSize - 1)
		s.kick(s.report)
	}
}

// meddle writes memory that belongs to the device at this time.
func (s *script) meddle() {
	switch s.fault {
	case "writes buffers of the device":
		for _, at := range s.buffers {
			s.memory.Write(at+protocol.EventSize-1, []byte{1})
		}
	case "changes messages too early":
		// The device must have read the message before, or it cannot see the change.
		if time.Since(s.lastSent) > 20*time.Millisecond {
			for _, slot := range s.inFlight {
				h, err := protocol.DecodeHeader(s.memory.Read(slot, protocol.HeaderSize))
				if err == nil && h.Type == protocol.MessageReport { // others break other rules
					s.memory.Write(slot+protocol.HeaderSize, []byte{0})
				}
			}
		}
	}
}
