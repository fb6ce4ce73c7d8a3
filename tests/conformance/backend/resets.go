// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// resets are the rules of STATUS, RESET_DEVICE and RESET_OWNER.
func resets() []check {
	return []check{
		{id: "VHU-STS-1", source: "vhost-user.rst, VHOST_USER_GET_STATUS",
			text: "GET_STATUS is answered by what SET_STATUS set.", run: statusKept},
		{id: "VHU-STS-2", source: "VIRTIO 1.2, 2.1.2 and 2.4",
			text: "A status of 0 resets the device: it reads as 0, and the device can be set up again.",
			run:  statusZero},
		{id: "VHU-STS-3", source: "QEMU 10.0 sends no DRIVER_OK for some devices",
			text: "The device works before DRIVER_OK: an enabled ring is all it waits for.",
			run:  withoutDriverOK},
		{id: "VHU-RST-1", source: "vhost-user.rst, VHOST_USER_RESET_DEVICE",
			text: "RESET_DEVICE disables all rings.", run: resetDisables},
		{id: "VHU-RST-2", source: "vhost-user.rst, VHOST_USER_RESET_DEVICE",
			text: "After RESET_DEVICE the device can be set up again on the same connection.",
			run:  resetAndAgain},
		{id: "VHU-RST-3", source: "vhost-user.rst, VHOST_USER_RESET_OWNER", advice: true,
			text: "RESET_OWNER does not end the connection.", run: resetOwner},
	}
}

func (s *session) status(f *vhosttest.Frontend) uint64 {
	v, err := f.AskU64(wire.GetStatus)
	s.must(err, "ask for the status")
	return v
}

func statusKept(s *session) {
	f := s.realizeWith(wire.ProtocolStatus)
	for _, v := range []wire.U64{1, 3, 11} { // ACKNOWLEDGE, DRIVER, FEATURES_OK
		if v == 11 { // which says that the features were chosen
			s.must(f.Tell(wire.SetFeatures, modern(f)), "set features")
		}
		s.must(f.TellSync(wire.SetStatus, v.AppendTo(nil)), "set status %v", v)
		if got := s.status(f); got != uint64(v) {
			s.Failf("the status was set to %v and is %#x", v, got)
		}
	}
}

func statusZero(s *session) {
	m := s.boot(bootOptions{})
	s.need(m.f.Negotiated.Has(wire.ProtocolStatus), "backend does not offer STATUS")
	m.work(2)
	m.must(m.f.TellSync(wire.SetStatus, wire.U64(0).AppendTo(nil)), "set status 0")
	if got := s.status(m.f); got != 0 {
		s.Failf("the status was set to 0 and is %#x", got)
	}
	m.afresh()
	m.work(2)
}

// afresh sends what QEMU sends when a driver initialises the device again, after the rings
// were stopped.
func (m *machine) afresh() {
	m.must(m.f.Stop(m.queues...), "stop the rings")
	for _, q := range m.queues {
		q.Reset()
	}
	if m.f.Negotiated.Has(wire.ProtocolConfigureMemSlots) {
		for _, b := range m.g.Blocks {
			m.must(m.f.RemoveBlock(b), "remove memory")
		}
	}
	m.must(m.f.Start(m.g, m.features, m.queues...), "start the device again")
}

func withoutDriverOK(s *session) {
	m := s.boot(bootOptions{})
	s.need(m.f.Negotiated.Has(wire.ProtocolStatus), "backend does not offer STATUS")
	m.work(2)
}

func resetDisables(s *session) {
	m := s.boot(bootOptions{})
	s.need(m.f.Negotiated.Has(wire.ProtocolResetDevice), "backend does not offer RESET_DEVICE")
	m.work(2)
	m.must(m.f.TellSync(wire.ResetDevice, nil), "reset the device")
	m.put(2)
	m.kick()
	m.idles("after RESET_DEVICE")
}

func resetAndAgain(s *session) {
	m := s.boot(bootOptions{})
	s.need(m.f.Negotiated.Has(wire.ProtocolResetDevice), "backend does not offer RESET_DEVICE")
	for range 3 {
		m.work(2)
		m.must(m.f.TellSync(wire.ResetDevice, nil), "reset the device")
		m.afresh()
	}
	m.work(2)
}

func resetOwner(s *session) {
	f := s.realize(vhosttest.Options{})
	s.must(f.Tell(wire.ResetOwner, nil), "send %v", wire.ResetOwner)
	s.must(f.Barrier(), "ask after %v", wire.ResetOwner)
}
