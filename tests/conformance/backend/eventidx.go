// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"encoding/binary"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// eventIdx are the rules of VIRTIO_F_EVENT_IDX on split rings.
func eventIdx() []check {
	return []check{
		{id: "VHU-EVT-1", source: "VIRTIO 1.2, 2.7.7.2",
			text: "The device calls when the used index passes used_event.", run: usedEvent},
		{id: "VHU-EVT-2", source: "VIRTIO 1.2, 2.7.7.2", advice: true,
			text: "The device does not call before the used index passes used_event.", run: usedEventFar},
		{id: "VHU-EVT-3", source: "VIRTIO 1.2, 2.7.10",
			text: "A driver that kicks only when avail_event asks for it is never stuck.", run: availEvent},
		{id: "VHU-EVT-4", source: "vhost-user.rst, Migration",
			text: "What the device writes to avail_event is marked in the log," +
				" as the rest of the used ring is.",
			run: availEventLogged},
	}
}

// bootEvents boots a machine with EVENT_IDX.
func (s *session) bootEvents() *machine {
	m := s.boot(bootOptions{features: 1 << wire.FeatureEventIdx})
	s.need(m.f.Offered.Has(wire.FeatureEventIdx), "backend does not offer EVENT_IDX")
	return m
}

func (m *machine) setUsedEvent(v uint16) {
	m.g.Write(m.q.Avail+4+2*ringSize, binary.LittleEndian.AppendUint16(nil, v))
}

func (m *machine) availEvent() uint16 {
	return binary.LittleEndian.Uint16(m.g.Read(m.q.UsedRing+4+8*ringSize, 2))
}

func usedEvent(s *session) {
	m := s.bootEvents()
	for range 20 {
		m.setUsedEvent(m.q.UsedIdx())
		m.q.Call.Clear()
		m.put(1)
		m.kick()
		s.must(m.q.Call.Wait(m.cfg.Patience), "wait for the call that used_event asks for")
		m.collect(1)
	}
}

func usedEventFar(s *session) {
	m := s.bootEvents()
	m.setUsedEvent(m.q.UsedIdx())
	m.work(1) // the first call after the start may come whatever used_event is
	m.setUsedEvent(m.q.UsedIdx() + 1000)
	time.Sleep(quiet)
	m.q.Call.Clear()
	m.put(4)
	m.kick()
	m.collectPolling(4)
	time.Sleep(quiet)
	if m.q.Call.Clear() {
		s.Failf("the device called though used_event is 1000 away")
	}
}

func availEvent(s *session) {
	m := s.bootEvents()
	kicks := 0
	for range 100 {
		m.setUsedEvent(m.q.UsedIdx())
		before := m.q.AvailIdx()
		m.put(1)
		// vring_need_event of VIRTIO 1.2, 2.7.7.2
		if event, now := m.availEvent(), m.q.AvailIdx(); now-event-1 < now-before {
			m.kick()
			kicks++
		}
		m.collectPolling(1)
	}
	s.Notef("%d kicks for 100 requests", kicks)
}

func availEventLogged(s *session) {
	l := s.migrate(bootOptions{features: 1 << wire.FeatureEventIdx})
	s.need(l.f.Offered.Has(wire.FeatureEventIdx), "backend does not offer EVENT_IDX")
	for range 10 {
		l.setUsedEvent(l.q.UsedIdx())
		l.put(slots)
		l.Round()
		l.kick()
		l.collectPolling(slots)
		l.stopQueue()
		l.complete()
		l.startRequestQueue()
	}
}
