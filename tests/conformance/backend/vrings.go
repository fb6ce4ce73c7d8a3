// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// vrings are the rules of setting rings up, and of enabling and disabling them.
func vrings() []check {
	const states = "vhost-user.rst, Ring states"
	return []check{
		{id: "VHU-RING-1", source: "vhost-user.rst, Starting and stopping rings; VIRTIO 1.2, 2.7",
			text: "Each chain that the driver makes available is used once.", run: ringWorks},
		{id: "VHU-RING-2", source: "vhost-user.rst, VHOST_USER_SET_VRING_BASE",
			text: "A ring starts at its base, and its indices wrap at 65536.", run: ringWraps},
		{id: "VHU-RING-3", source: states,
			text: "A kick that comes between SET_VRING_KICK and SET_VRING_ENABLE is not lost.",
			run:  kickBeforeEnable},
		{id: "VHU-RING-4", source: states,
			text: "A kick that was raised before SET_VRING_KICK is not lost.", run: kickBeforeStart},
		{id: "VHU-RING-5", source: states,
			text: "A ring that is started but disabled causes no side effects.", run: disabledQuiet},
		{id: "VHU-RING-6", source: states,
			text: "Without PROTOCOL_FEATURES acknowledged a ring starts enabled.", run: startsEnabled},
		{id: "VHU-RING-7", source: states,
			text: "A ring that is disabled and enabled under load loses nothing and repeats nothing.",
			run:  toggled},
		{id: "VHU-RING-8", source: "VIRTIO 1.2, 2.7.5.3",
			text: "An indirect table is followed.", run: indirect},
		{id: "VHU-RING-9", source: "vhost-user.rst, VHOST_USER_SET_VRING_ADDR", advice: true,
			text: "A ring outside of the memory table is refused.", run: ringOutside},
		{id: "VHU-RING-10", source: "VIRTIO 1.2, 2.7", advice: true,
			text: "A ring size that is 0, not a power of two or above 32768 is refused.", run: badSizes},
		{id: "VHU-RING-11", source: "vhost-user.rst, VHOST_USER_SET_VRING_BASE", advice: true,
			text: "A base that is no index of a split ring is refused.", run: badBase},
		{id: "VHU-RING-12", source: "VIRTIO 1.2, 2.7",
			text: "Rings of 4 and of 128 entries work.", run: ringSizes},
		{id: "VHU-RING-13", source: "VIRTIO 1.2, 3.1.1; the driver chooses a size at each start",
			text: "A ring can be set up anew, elsewhere and of another size, after it was stopped.",
			run:  ringMoves},
		{id: "VHU-RING-14", source: "VIRTIO 1.2, 2.7.8.2",
			text: "The length in the used ring is not more than the device can have written.",
			run:  usedAtMost},
		{id: "VHU-RING-15", source: "VIRTIO 1.2, 2.7.9",
			text: "With IN_ORDER chains are used in the order in which they were made available.",
			run:  inOrder},
		{id: "VHU-RING-16", source: "VIRTIO 1.2, 2.7.8", advice: true,
			text: "The length in the used ring is not less than the device wrote.", run: usedAtLeast},
		{id: "VHU-RING-17", source: "vhost-user.rst, VHOST_USER_SET_VRING_ADDR; Suspended device state",
			text: "A ring whose address was refused is not processed at the one that it had before.",
			run:  ringStale},
	}
}

func ringWorks(s *session) {
	m := s.boot(bootOptions{})
	for n := 1; n <= slots; n *= 2 {
		m.work(n)
	}
	for range ringSize / slots * 2 { // around the ring, twice
		m.work(slots)
	}
}

func inOrder(s *session) {
	m := s.boot(bootOptions{features: 1 << wire.FeatureInOrder})
	s.need(m.f.Offered.Has(wire.FeatureInOrder), "backend does not offer IN_ORDER")
	for range 10 {
		m.work(slots) // the driver takes a chain out of its order for an error
	}
}

func usedAtMost(s *session) { s.usedLengths(atMost) }

func usedAtLeast(s *session) { s.usedLengths(atLeast) }

// atMost lets a device say less than it wrote: 2.7.8.2 has it write at least that
// much.
func atMost(r *Request, n uint32) bool { return n <= r.writable() }

func atLeast(r *Request, n uint32) bool { return !r.Exact || n >= r.writable() }

func (s *session) usedLengths(judge func(r *Request, n uint32) bool) {
	m := s.boot(bootOptions{})
	m.length = judge
	m.work(4)
	if format := m.cfg.Profile.Format; format != nil { // requests of another kind
		m.idle = []*Request{format(m.g, m.g.Alloc, 0)}
		m.work(1)
	}
}

func ringWraps(s *session) {
	m := s.boot(bootOptions{stopped: true})
	m.configure()
	m.q.Warp(65536 - 10)
	m.startRings(true)
	m.work(slots)
	m.work(slots)
	if base := m.stopQueue(); base != uint16(2*slots-10) {
		s.Failf("after %d requests from index %d the base is %d", 2*slots, 65536-10, base)
	}
}

func kickBeforeEnable(s *session) {
	for range 8 {
		m := s.boot(bootOptions{stopped: true})
		m.needProtocolFeatures()
		m.configure()
		m.startRings(false)
		m.put(3)
		m.kick()
		time.Sleep(5 * time.Millisecond) // the backend may see it now, and must remember
		m.enable(true)
		m.collect(3)
		m.f.Close()
	}
}

func (m *machine) needProtocolFeatures() {
	m.need(m.f.Offered.Has(wire.FeatureProtocolFeatures), "backend does not offer PROTOCOL_FEATURES")
}

func kickBeforeStart(s *session) {
	m := s.boot(bootOptions{stopped: true})
	m.configure()
	m.put(3)
	m.kick()
	m.startRings(true)
	m.collect(3)
}

func disabledQuiet(s *session) {
	m := s.boot(bootOptions{stopped: true})
	m.needProtocolFeatures()
	m.configure()
	m.startRings(false)
	r := m.request()
	s.need(r.Data != 0, "the device writes no data")
	m.putRequest(r)
	m.kick()
	m.must(m.f.Barrier(), "ask")
	m.idles("of a ring that was never enabled")
	if m.g.Read(r.Data, 1)[0] != blank {
		s.Failf("the device wrote a buffer of a ring that was never enabled")
	}
	m.enable(true)
	m.collect(1)
	m.enable(false)
	m.put(1)
	m.kick()
	m.idles("of a ring that was disabled")
	m.enable(true)
	m.collect(1)
}

func startsEnabled(s *session) {
	none := vhosttest.Options{Without: ^wire.ProtocolFeatures(0)}
	m := s.boot(bootOptions{stopped: true, Options: none})
	features := wire.U64(m.features &^ (1 << wire.FeatureProtocolFeatures))
	m.must(m.f.Send(wire.SetFeatures, 0, features.AppendTo(nil)), "set features")
	m.must(m.f.SetTable(m.g), "set memory")
	m.startRings(false)
	m.work(2)
}

func toggled(s *session) {
	m := s.boot(bootOptions{})
	m.needProtocolFeatures()
	for range 20 {
		m.put(slots)
		m.kick()
		m.enable(false)
		m.enable(true)
		m.collect(slots)
	}
}

func indirect(s *session) {
	s.boot(bootOptions{features: 1 << wire.FeatureIndirectDesc}).followsTables()
}

func ringOutside(s *session) {
	for _, part := range []string{"descriptor table", "available ring", "used ring"} {
		m := s.boot(bootOptions{stopped: true})
		s.need(m.f.Negotiated.Has(wire.ProtocolReplyAck), "backend does not offer REPLY_ACK")
		m.configure()
		m.must(m.f.Tell(wire.SetVringNum, m.ringState(ringSize)), "set ring size")
		a := m.q.Addr(0)
		switch part {
		case "descriptor table":
			a.Desc = 0x1000
		case "available ring":
			a.Avail = 0x1000
		case "used ring":
			a.Used = 0x1000
		}
		s.refuse(m.f, "a "+part+" outside of memory", wire.SetVringAddr, a.AppendTo(nil))
	}
}

// ringStale starts a ring as a frontend does that asks for no acknowledgement, at
// no place in memory. The driver has something else where the ring was before.
func ringStale(s *session) {
	m := s.boot(bootOptions{})
	m.work(2)
	m.stopQueue()
	m.put(2)
	kick := wire.VringFD{Index: uint32(m.q.Index)}.AppendTo(nil)
	a := m.q.Addr(0)
	a.Desc, a.Avail, a.Used = 0x1000, 0x2000, 0x3000
	for _, r := range []struct {
		req     wire.Request
		payload []byte
		fds     []int
	}{
		{wire.SetVringNum, m.ringState(ringSize), nil},
		{wire.SetVringBase, m.ringState(m.q.Base()), nil},
		{wire.SetVringAddr, a.AppendTo(nil), nil},
		{wire.SetVringKick, kick, []int{m.q.Kick.FD}},
		{wire.SetVringEnable, m.ringState(1), nil},
	} {
		if err := m.f.Send(r.req, 0, r.payload, r.fds...); closed(err) {
			s.Notef("the backend closed the connection")
			break
		} else if err != nil {
			s.Failf("send %v: %v", r.req, err)
		}
	}
	if err := m.f.Barrier(); err != nil && !closed(err) {
		s.Failf("ask after an address outside of memory: %v", err)
	}
	m.kick()
	m.idles("of a ring whose address was refused")
	s.serves(m.f, "after the address of a ring outside of memory")
}

func badSizes(s *session) {
	for _, n := range []uint32{0, 3, 1 << 16, 1 << 31} {
		f := s.realizeWith(wire.ProtocolReplyAck)
		s.refuse(f, fmt.Sprintf("%d entries", n), wire.SetVringNum, wire.VringState{Num: n}.AppendTo(nil))
	}
}

func badBase(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	s.must(f.SetFeatures(uint64(f.Offered)&(1<<wire.FeatureVersion1)), "set features")
	s.refuse(f, "65536", wire.SetVringBase, wire.VringState{Num: 1 << 16}.AppendTo(nil))
}

func ringSizes(s *session) {
	for _, size := range []int{4, 128} {
		m := s.boot(bootOptions{stopped: true})
		m.replaceQueue(size)
		m.configure()
		m.startRings(true)
		for range 5 {
			m.work(1)
		}
		m.f.Close()
	}
}

// replaceQueue gives the request queue a new ring.
func (m *machine) replaceQueue(size int) {
	index := m.q.Index
	m.q = m.newQueue(index, size)
	m.queues[index] = m.q
}

func ringMoves(s *session) {
	m := s.boot(bootOptions{})
	for _, size := range []int{ringSize, 16, 128} {
		m.work(3)
		m.stopQueue()
		m.replaceQueue(size)
		m.must(m.f.StartRing(m.q), "start the ring elsewhere")
		m.must(m.f.Enable(m.q, true), "enable the ring")
	}
	m.work(3)
}
