// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// features are the rules of negotiation.
func features() []check {
	return []check{
		{id: "VHU-FEAT-1", source: "vhost-user.rst, VHOST_USER_GET_FEATURES",
			text: "Whoever asks again, on this connection or a later one, is offered the same features.",
			run:  sameFeatures},
		{id: "VHU-FEAT-2", source: "vhost-user.rst, VHOST_USER_GET_PROTOCOL_FEATURES",
			text: "Protocol features can be asked for and set before SET_FEATURES.", run: protocolFirst},
		{id: "VHU-FEAT-3", source: "VIRTIO 1.2, 2.2.2", advice: true,
			text: "A feature that was not offered is refused.", run: unofferedFeature},
		{id: "VHU-FEAT-4", source: "vhost-user.rst, VHOST_USER_SET_PROTOCOL_FEATURES", advice: true,
			text: "A protocol feature that was not offered is refused.", run: unofferedProtocol},
		{id: "VHU-FEAT-5", source: "vhost-user.rst, In-band notifications",
			text: "INBAND_NOTIFICATIONS is offered only with BACKEND_REQ and REPLY_ACK.", run: inbandOffer},
		{id: "VHU-FEAT-6", source: "vhost-user.rst, In-band notifications", advice: true,
			text: "INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK is refused," +
				" or the connection closed.",
			run: inbandAlone},
		{id: "VHU-FEAT-7", source: "vhost-user.rst, Back-end communication",
			text: "BACKEND_SEND_FD is offered only with BACKEND_REQ.", run: sendFDOffer},
		{id: "VHU-FEAT-8", source: "vhost-user.rst, Migration; QEMU 10.0, vhost_user_backend_init",
			advice: true,
			text:   "LOG_ALL and LOG_SHMFD are offered together: with one alone a guest cannot be migrated.",
			run:    logOffer},
		{id: "VHU-FEAT-9", source: "vhost-user.rst, Multiple queue support", advice: true,
			text: "MQ is offered, whatever the number of queues.", run: mqOffer},
		{id: "VHU-FEAT-10", source: "vhost-user.rst, VHOST_USER_SET_FEATURES",
			text: "Features can be set again, for instance to switch logging.", run: featuresAgain},
		{id: "VHU-FEAT-11", source: "vhost-user.rst, VHOST_USER_GET_PROTOCOL_FEATURES", advice: true,
			text: "A guest that accepts LOG_ALL itself, with no log there, does not stop the device.",
			run:  logAllWithoutLog},
	}
}

func sameFeatures(s *session) {
	f := s.realize(vhosttest.Options{})
	for _, again := range []*vhosttest.Frontend{f, nil} {
		if again == nil {
			f.Close()
			again = s.connect()
		}
		v, err := again.AskU64(wire.GetFeatures)
		s.must(err, "ask for features again")
		if wire.Features(v) != f.Offered {
			s.Failf("first %v were offered, then %v", f.Offered, wire.Features(v))
		}
		if !f.Offered.Has(wire.FeatureProtocolFeatures) {
			continue
		}
		v, err = again.AskU64(wire.GetProtocolFeatures)
		s.must(err, "ask for protocol features again")
		if wire.ProtocolFeatures(v) != f.Protocol {
			s.Failf("first the protocol features %v were offered, then %v",
				f.Protocol, wire.ProtocolFeatures(v))
		}
	}
}

func protocolFirst(s *session) {
	f := s.connect()
	v, err := f.AskU64(wire.GetFeatures)
	s.must(err, "ask for features")
	s.need(wire.Features(v).Has(wire.FeatureProtocolFeatures),
		"backend does not offer PROTOCOL_FEATURES")
	v, err = f.AskU64(wire.GetProtocolFeatures)
	s.must(err, "ask for protocol features")
	payload := wire.U64(v & (1 << wire.ProtocolReplyAck)).AppendTo(nil)
	s.must(f.Send(wire.SetProtocolFeatures, 0, payload), "set protocol features")
	if wire.ProtocolFeatures(v).Has(wire.ProtocolReplyAck) {
		s.accept(f, wire.SetOwner, nil) // REPLY_ACK is in force
	}
	s.must(f.Barrier(), "ask after the protocol features were set")
}

// refusal fails unless the backend refuses a request, by its acknowledgement or by closing
// the connection.
func (s *session) refusal(f *vhosttest.Frontend, what string, req wire.Request, payload []byte) {
	err := f.Confirm(req, payload)
	switch {
	case err == nil:
		s.Failf("%s: acknowledged as a success", what)
	case errors.As(err, new(*vhosttest.Refused)), closed(err):
	default:
		s.Failf("%s: %v", what, err)
	}
}

func unofferedFeature(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	for bit := range 64 {
		if !f.Offered.Has(uint(bit)) {
			s.refusal(f, "SET_FEATURES with a bit that was not offered", wire.SetFeatures,
				wire.U64(uint64(1<<bit)|uint64(f.Offered&(1<<wire.FeatureVersion1))).AppendTo(nil))
			return
		}
	}
}

func unofferedProtocol(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	for bit := range 64 {
		if !f.Protocol.Has(uint(bit)) {
			s.refusal(f, "SET_PROTOCOL_FEATURES with a bit that was not offered", wire.SetProtocolFeatures,
				wire.U64(uint64(f.Negotiated)|1<<bit).AppendTo(nil))
			return
		}
	}
}

func inbandOffer(s *session) {
	f := s.realize(vhosttest.Options{})
	s.need(f.Protocol.Has(wire.ProtocolInbandNotify), "backend does not offer INBAND_NOTIFICATIONS")
	if !f.Protocol.Has(wire.ProtocolBackendReq) || !f.Protocol.Has(wire.ProtocolReplyAck) {
		s.Failf("the backend offers %v", f.Protocol)
	}
}

func inbandAlone(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	s.need(f.Protocol.Has(wire.ProtocolInbandNotify), "backend does not offer INBAND_NOTIFICATIONS")
	alone := wire.U64(1<<wire.ProtocolInbandNotify | 1<<wire.ProtocolReplyAck).AppendTo(nil)
	s.refusal(f, "SET_PROTOCOL_FEATURES with INBAND_NOTIFICATIONS and REPLY_ACK alone",
		wire.SetProtocolFeatures, alone)
}

func sendFDOffer(s *session) {
	f := s.realize(vhosttest.Options{})
	s.need(f.Protocol.Has(wire.ProtocolBackendSendFD), "backend does not offer BACKEND_SEND_FD")
	if !f.Protocol.Has(wire.ProtocolBackendReq) {
		s.Failf("the backend offers %v", f.Protocol)
	}
}

func logOffer(s *session) {
	f := s.realize(vhosttest.Options{})
	all, shm := f.Offered.Has(wire.FeatureLogAll), f.Protocol.Has(wire.ProtocolLogSHMFD)
	switch {
	case all && !shm:
		s.Failf("LOG_ALL is offered, LOG_SHMFD is not")
	case shm && !all:
		s.Failf("LOG_SHMFD is offered, LOG_ALL is not")
	}
}

func mqOffer(s *session) {
	f := s.realize(vhosttest.Options{})
	s.need(f.Offered.Has(wire.FeatureProtocolFeatures), "backend does not offer PROTOCOL_FEATURES")
	if !f.Protocol.Has(wire.ProtocolMQ) {
		s.Failf("the backend offers %v", f.Protocol)
	}
}

func featuresAgain(s *session) {
	m := s.boot(bootOptions{})
	m.work(1)
	m.must(m.f.SetFeatures(m.features), "set features of a running device again")
	m.work(1)
}

func logAllWithoutLog(s *session) {
	m := s.boot(bootOptions{stopped: true})
	s.need(m.f.Offered.Has(wire.FeatureLogAll), "backend does not offer LOG_ALL")
	m.configure()
	bits := m.features | 1<<wire.FeatureLogAll | uint64(m.f.Offered&(1<<wire.FeatureProtocolFeatures))
	m.must(m.f.TellSync(wire.SetFeatures, wire.U64(bits).AppendTo(nil)), "set LOG_ALL")
	m.startRings(true)
	m.work(slots)
}

// queues are the rules of MQ.
func queues() []check {
	return []check{
		{id: "VHU-MQ-1", source: "vhost-user.rst, VHOST_USER_GET_QUEUE_NUM",
			text: "GET_QUEUE_NUM is answered by how many queues there are," +
				" at least as many as the device's driver uses.",
			run: queueNum},
		{id: "VHU-MQ-2", source: "vhost-user.rst, Multiple queue support",
			text: "A queue whose number is not below GET_QUEUE_NUM is refused.", run: queueBeyond},
		{id: "VHU-MQ-3", source: "vhost-user.rst, Ring states",
			text: "Each ring is started, stopped and enabled for itself.", run: queuesApart},
	}
}

func queueNum(s *session) {
	f := s.realizeWith(wire.ProtocolMQ)
	n, err := f.AskU64(wire.GetQueueNum)
	s.must(err, "ask for the number of queues")
	if n < uint64(max(1, s.cfg.Profile.Queues)) {
		s.Failf("the backend has %d queues", n)
	}
}

func queueBeyond(s *session) {
	for _, req := range []wire.Request{
		wire.SetVringNum, wire.SetVringBase, wire.SetVringEnable, wire.SetVringAddr,
	} {
		f := s.realizeWith(wire.ProtocolMQ, wire.ProtocolReplyAck)
		n, err := f.AskU64(wire.GetQueueNum)
		s.must(err, "ask for the number of queues")
		payload := wire.VringState{Index: uint32(n), Num: 1}.AppendTo(nil)
		if req == wire.SetVringAddr {
			payload = wire.VringAddr{Index: uint32(n)}.AppendTo(nil)
		}
		s.refuse(f, "the number of a queue that does not exist", req, payload)
	}
}

func queuesApart(s *session) {
	m := s.boot(bootOptions{})
	s.need(len(m.queues) > 1, "the device has one queue")
	for _, other := range m.queues {
		if other == m.q {
			continue
		}
		_, err := m.f.StopRing(other)
		m.must(err, "stop ring %d", other.Index)
		m.work(2)
		m.must(m.f.StartRing(other), "start ring %d", other.Index)
		m.must(m.f.Enable(other, false), "disable ring %d", other.Index)
		m.work(2)
	}
}
