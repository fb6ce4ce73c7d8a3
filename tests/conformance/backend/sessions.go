// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// sessions are the rules of one connection after another.
func sessions() []check {
	return []check{
		{id: "VHU-CONN-1", source: "vhost-user.rst, Communication: a reconnection mechanism is optional",
			advice: true,
			text:   "After a frontend has left the backend serves the next one.", run: reconnect},
		{id: "VHU-CONN-2", source: "vhost-user.rst, Ring states",
			text: "A connection begins anew: what an earlier one set up is forgotten.",
			run:  freshConnection},
		{id: "VHU-CONN-3", source: "vhost-user.rst, Communication",
			text: "A frontend that leaves with requests on the ring does the backend no harm.",
			run:  leaveBusy},
		{id: "VHU-CONN-4", source: "vhost-user.rst, Communication",
			text: "After a frontend has left, its guest's memory is not written any more.",
			run:  quietAfterLeave},
		{id: "VHU-CONN-5",
			source: "QEMU 10.0, vhost_user_blk_chr_event: a driver goes on with another connection",
			text:   "A driver whose frontend connects again goes on at the used index.", run: driverGoesOn},
	}
}

func reconnect(s *session) {
	for range 5 {
		f, err := s.peer.dial(s.Context(), s.cfg.Patience)
		s.must(err, "connect again")
		f.Close()
		if s.peer.process != nil && s.peer.leaves() {
			s.Failf("the backend ended with its frontend")
		}
	}
}

// leaves says whether the process that was started ends by itself within a moment.
func (p *peer) leaves() bool {
	select {
	case <-p.process.done:
		return true
	case <-time.After(50 * time.Millisecond):
		return false
	}
}

func freshConnection(s *session) {
	m := s.boot(bootOptions{})
	m.work(5)
	m.f.Close()
	again := s.realize(vhosttest.Options{})
	s.must(again.SetFeatures(m.features), "set features")
	reply, err := again.Ask(wire.GetVringBase, wire.VringState{Index: uint32(m.q.Index)}.AppendTo(nil))
	s.must(err, "ask for the base")
	defer reply.Close()
	v, err := wire.DecodeVringState(reply.Payload)
	s.must(err, "ask for the base")
	if v.Num != 0 {
		s.Failf("a ring of a new connection has the base %d of the one before", v.Num)
	}
}

func leaveBusy(s *session) {
	for range 10 {
		m := s.boot(bootOptions{})
		m.put(slots)
		m.kick()
		s.serves(m.f, "after a frontend left with requests on the ring")
	}
}

func quietAfterLeave(s *session) {
	m := s.boot(bootOptions{})
	m.put(slots)
	m.kick()
	s.serves(m.f, "after a frontend left") // it takes the next: it is done with this one
	before := m.snapshot()
	m.put(1)
	m.kick()
	time.Sleep(quiet)
	for i, b := range m.g.Blocks {
		after := m.g.Read(b.Addr, b.Size())
		at := firstDifference(before[i], after)
		addr := b.Addr + uint64(at)
		if at >= 0 && addr >= m.q.UsedRing && addr < m.q.UsedRing+vhosttest.PageSize {
			s.Failf("the used ring was written after the frontend had left")
		}
	}
}

func driverGoesOn(s *session) {
	m := s.boot(bootOptions{})
	for range 3 {
		m.work(5)
		m.f.Close()
		m.q.Resume()
		m.f = s.realize(vhosttest.Options{Queues: m.queues})
		m.must(m.f.Start(m.g, m.features, m.queues...), "start the device again")
	}
	m.work(5)
}
