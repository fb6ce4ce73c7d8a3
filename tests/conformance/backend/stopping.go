// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"bytes"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// stopping are the rules of GET_VRING_BASE.
func stopping() []check {
	const source = "vhost-user.rst, VHOST_USER_GET_VRING_BASE"
	return []check{
		{id: "VHU-STOP-1", source: source,
			text: "The base of an idle ring is the index of the next available entry.", run: baseOfIdleRing},
		{id: "VHU-STOP-2", source: source,
			text: "A ring that was never started has the base that was set.", run: baseOfUnstartedRing},
		{id: "VHU-STOP-3", source: source,
			text: "Every chain before the base has been used when the reply comes: none stays in flight.",
			run:  drained},
		{id: "VHU-STOP-4",
			source: "vhost-user.rst, Migration: no further update before rings are restarted",
			text:   "After the reply neither guest memory nor the call descriptor is touched.",
			run:    stillAfterStop},
		{id: "VHU-STOP-5", source: "vhost-user.rst, Ring states",
			text: "A stopped ring is not processed, whatever is available and kicked.", run: stoppedRing},
		{id: "VHU-STOP-6", source: source,
			text: "A ring that is stopped under load and started at its base loses nothing and" +
				" repeats nothing.",
			run: stopStart},
		{id: "VHU-STOP-7", source: source,
			text: "What was available when a ring stopped is processed when it starts again.",
			run:  restartFindsWork},
		{id: "VHU-STOP-8", source: "QEMU 7.2 sends SET_STATUS 0 before GET_VRING_BASE",
			text: "A status of 0 does not make the backend forget the base.", run: baseAfterStatus},
	}
}

func baseOfIdleRing(s *session) {
	m := s.boot(bootOptions{})
	m.work(7)
	if base := m.stopQueue(); base != 7 {
		s.Failf("after 7 requests the base is %d", base)
	}
}

func baseOfUnstartedRing(s *session) {
	f := s.realize(vhosttest.Options{})
	s.must(f.SetFeatures(uint64(f.Offered)&(1<<wire.FeatureVersion1)), "set features")
	s.must(f.TellSync(wire.SetVringBase, wire.VringState{Num: 1234}.AppendTo(nil)), "set the base")
	reply, err := f.Ask(wire.GetVringBase, wire.VringState{}.AppendTo(nil))
	s.must(err, "ask for the base")
	defer reply.Close()
	v, err := wire.DecodeVringState(reply.Payload)
	s.must(err, "ask for the base")
	if v.Num != 1234 {
		s.Failf("the base was set to 1234 and is %d", v.Num)
	}
}

func drained(s *session) {
	m := s.boot(bootOptions{})
	for range 10 {
		m.put(slots)
		m.kick()
		base := m.stopQueue()
		if used := m.q.UsedIdx(); used != base {
			s.Failf("the base is %d, but only the chains up to %d have been used", base, used)
		}
		m.startRequestQueue()
		m.collect(slots)
	}
}

// startRequestQueue starts the ring again. The call descriptor comes first:
// where QEMU sends it is a rule of its own.
func (m *machine) startRequestQueue() {
	m.must(m.f.SetCall(m.q), "set the call descriptor")
	m.must(m.f.StartRing(m.q), "start the ring")
	m.must(m.f.Enable(m.q, true), "enable the ring")
}

func stillAfterStop(s *session) {
	m := s.boot(bootOptions{})
	for range 5 {
		m.put(slots)
		m.kick()
		m.stopQueue()
		m.q.Call.Clear()
		before := m.snapshot()
		time.Sleep(quiet)
		for i, b := range m.g.Blocks {
			if at := firstDifference(before[i], m.g.Read(b.Addr, b.Size())); at >= 0 {
				s.Failf("guest memory at %#x was written after the ring had stopped", b.Addr+uint64(at))
			}
		}
		if m.q.Call.Clear() {
			s.Failf("the driver was called after the ring had stopped")
		}
		m.startRequestQueue()
		m.collect(slots)
	}
}

func (m *machine) snapshot() [][]byte {
	var all [][]byte
	for _, b := range m.g.Blocks {
		all = append(all, m.g.Read(b.Addr, b.Size()))
	}
	return all
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func stoppedRing(s *session) {
	m := s.boot(bootOptions{})
	m.work(1)
	m.stopQueue()
	m.put(2)
	m.kick()
	m.must(m.f.Barrier(), "ask")
	m.idles("of a ring that is stopped")
	m.startRequestQueue()
	m.collect(2)
}

func stopStart(s *session) {
	m := s.boot(bootOptions{})
	for i := range 30 {
		m.put(slots)
		m.kick()
		for range i % 4 {
			time.Sleep(20 * time.Microsecond)
		}
		m.stopQueue()
		m.startRequestQueue()
		m.collect(slots)
		m.nothingMore("twice")
	}
}

func restartFindsWork(s *session) {
	m := s.boot(bootOptions{})
	m.work(1)
	m.stopQueue()
	m.put(3)
	// The guest may have kicked while the ring was stopped, so QEMU kicks.
	m.startRequestQueue()
	m.kick()
	m.collect(3)
}

func baseAfterStatus(s *session) {
	m := s.boot(bootOptions{})
	s.need(m.f.Negotiated.Has(wire.ProtocolStatus), "backend does not offer STATUS")
	m.work(5)
	m.must(m.f.TellSync(wire.SetStatus, wire.U64(0).AppendTo(nil)), "set status 0")
	if base := m.stopQueue(); base != 5 {
		s.Failf("after 5 requests and a status of 0 the base is %d", base)
	}
}
