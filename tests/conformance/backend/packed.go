// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"math/rand/v2"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// packed are the rules of VIRTIO_F_RING_PACKED.
func packed() []check {
	const ring = "VIRTIO 1.2, 2.8"
	return []check{
		{id: "VHU-PACK-1", source: ring,
			text: "Each chain of a packed ring is used once, lap after lap.", run: packedWorks},
		{id: "VHU-PACK-2", source: "VIRTIO 1.2, 2.8.8",
			text: "An indirect table of a packed ring is followed.", run: packedIndirect},
		{id: "VHU-PACK-3",
			source: "vhost-user.rst, VHOST_USER_GET_VRING_BASE; QEMU keeps both places and wrap" +
				" counters in it",
			text: "A packed ring that is stopped under load and started at its base loses nothing and" +
				" repeats nothing.",
			run: packedStopStart},
		{id: "VHU-PACK-4", source: "vhost-user.rst, Migration",
			text: "All that is written to a packed ring and its buffers is marked before the reply to" +
				" GET_VRING_BASE.",
			run: packedLogged},
		{id: "VHU-PACK-5", source: ring + "; the guest is not trusted",
			text: "Random descriptors in a packed ring do no harm.", run: packedRandom},
	}
}

// withPacked is what a machine with packed rings is set up with.
func (s *session) withPacked(more uint64) bootOptions {
	f := s.realize(vhosttest.Options{})
	s.need(f.Offered.Has(wire.FeatureRingPacked), "backend does not offer RING_PACKED")
	f.Close()
	return bootOptions{features: 1<<wire.FeatureRingPacked | more}
}

func packedWorks(s *session) {
	for _, more := range []uint64{0, 1 << wire.FeatureEventIdx} {
		m := s.boot(s.withPacked(more))
		for n := 1; n <= slots; n++ {
			m.work(n)
		}
		m.f.Close()
	}
}

func packedIndirect(s *session) {
	s.boot(s.withPacked(1 << wire.FeatureIndirectDesc)).followsTables()
}

func packedStopStart(s *session) {
	m := s.boot(s.withPacked(0))
	for range 30 {
		m.put(slots)
		m.kick()
		m.stopQueue()
		m.startRequestQueue()
		m.collect(slots)
		m.nothingMore("twice")
	}
}

func packedLogged(s *session) {
	l := s.migrate(s.withPacked(0))
	for range 10 {
		l.put(slots)
		l.Round()
		l.kick()
		l.stopQueue()
		l.complete()
		l.startRequestQueue()
		l.collect(slots)
	}
}

func packedRandom(s *session) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 4 {
		m := s.boot(s.withPacked(0))
		for i := range ringSize {
			addr := m.g.Blocks[0].Addr + rnd.Uint64N(m.g.Blocks[0].Size())
			if rnd.IntN(8) == 0 {
				addr = rnd.Uint64()
			}
			m.q.PutPacked(i, addr, rnd.Uint32N(1<<16), uint16(rnd.UintN(2*ringSize)), uint16(rnd.Uint32()))
		}
		m.kick()
		time.Sleep(quiet / 8)
		if _, err := m.f.StopRing(m.q); err != nil && !closed(err) {
			s.Failf("stop a packed ring that a hostile driver wrote: %v", err)
		}
		s.serves(m.f, "after a packed ring that a hostile driver wrote")
	}
	s.boot(bootOptions{}).work(2)
}
