// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// channels are the rules of the backend's own requests, and of features that
// change who sends what.
func channels() []check {
	return []check{
		{id: "VHU-REQ-1", source: "vhost-user.rst, VHOST_USER_SET_BACKEND_REQ_FD",
			text: "SET_BACKEND_REQ_FD is accepted, and a later channel replaces the one before.",
			run:  backendChannel},
		{id: "VHU-REQ-2", source: "vhost-user.rst, VHOST_USER_SET_BACKEND_REQ_FD",
			text: "SET_BACKEND_REQ_FD without a descriptor is refused.", run: backendChannelWithoutFD},
		{id: "VHU-REQ-3", source: "vhost-user.rst, Back-end communication",
			text: "A frontend that closes its end of the channel does the device no harm.",
			run:  backendChannelClosed},
		{id: "VHU-INB-1", source: "vhost-user.rst, In-band notifications",
			text: "With INBAND_NOTIFICATIONS the ring is kicked by VRING_KICK.", run: inbandKick},
		{id: "VHU-TLB-1", source: "vhost-user.rst, VHOST_USER_IOTLB_MSG",
			text: "With ACCESS_PLATFORM an update of the IOTLB is answered by zero," +
				" one outside of memory by another value.",
			run: iotlb},
		{id: "VHU-POST-1", source: "vhost-user.rst, VHOST_USER_POSTCOPY_ADVISE",
			text: "With PAGEFAULT, POSTCOPY_ADVISE is answered by a userfaultfd.", run: postcopyAdvise},
		{id: "VHU-POST-3", source: "vhost-user.rst, VHOST_USER_SET_MEM_TABLE",
			text: "After POSTCOPY_LISTEN memory is answered with the backend's addresses of it," +
				" and POSTCOPY_END by zero.",
			run: postcopyMemory},
		{id: "VHU-POST-2", source: "vhost-user.rst, VHOST_USER_PROTOCOL_F_REPLY_ACK",
			text: "Without PAGEFAULT, POSTCOPY_ADVISE is refused.", run: postcopyRefused},
	}
}

func backendChannel(s *session) {
	f := s.realizeWith(wire.ProtocolBackendReq)
	s.must(f.OpenChannel(), "open another channel")
	s.must(f.Barrier(), "ask")
}

func backendChannelWithoutFD(s *session) {
	f := s.realizeWith(wire.ProtocolBackendReq, wire.ProtocolReplyAck)
	s.refuse(f, "no descriptor", wire.SetBackendReqFD, nil)
}

func backendChannelClosed(s *session) {
	m := s.boot(bootOptions{})
	s.need(m.f.Negotiated.Has(wire.ProtocolBackendReq), "backend does not offer BACKEND_REQ")
	m.f.Channel.Close()
	m.work(4)
}

func inbandKick(s *session) {
	inband := vhosttest.Options{Extra: 1 << wire.ProtocolInbandNotify}
	m := s.boot(bootOptions{stopped: true, Options: inband})
	s.need(m.f.Negotiated.Has(wire.ProtocolInbandNotify),
		"backend does not offer INBAND_NOTIFICATIONS")
	m.configure()
	// Without SET_VRING_KICK: a descriptor would be preferred to the message.
	m.must(m.f.Tell(wire.SetVringNum, m.ringState(ringSize)), "set ring size")
	m.must(m.f.Tell(wire.SetVringBase, m.ringState(0)), "set ring base")
	m.must(m.f.SetAddr(m.q), "set ring address")
	m.must(m.f.SetCall(m.q), "set call descriptor")
	m.must(m.f.Enable(m.q, true), "enable the ring")
	for range 3 {
		m.put(2)
		m.must(m.f.TellSync(wire.VringKick, m.ringState(0)), "kick in band")
		m.collect(2)
	}
}

func iotlb(s *session) {
	m := s.boot(bootOptions{stopped: true, features: 1 << wire.FeatureAccessPlatform})
	s.need(m.f.Offered.Has(wire.FeatureAccessPlatform), "backend does not offer ACCESS_PLATFORM")
	m.configure()
	r := m.g.Blocks[0].Region()
	send := func(v wire.IOTLB) uint64 {
		reply, err := m.f.Ask(wire.IOTLBMsg, v.AppendTo(nil))
		s.must(err, "send %v", wire.IOTLBMsg)
		defer reply.Close()
		status, err := wire.DecodeU64(reply.Payload)
		s.must(err, "reply to %v", wire.IOTLBMsg)
		return uint64(status)
	}
	good := wire.IOTLB{
		IOVA: 1 << 40, Size: 4096, UserAddr: r.UserAddr,
		Perm: wire.IOTLBRead | wire.IOTLBWrite, Type: wire.IOTLBUpdate,
	}
	if v := send(good); v != 0 {
		s.Failf("an update inside of memory was answered by %d", v)
	}
	bad := good
	bad.UserAddr = 0x1000
	if v := send(bad); v == 0 {
		s.Failf("an update outside of memory was answered by success")
	}
	good.Type = wire.IOTLBInvalidate
	if v := send(good); v != 0 {
		s.Failf("an invalidation was answered by %d", v)
	}
}

// postcopy opens a connection whose frontend has the backend's userfaultfd.
func (s *session) postcopy() *vhosttest.Postcopy {
	f := s.realizeWith(wire.ProtocolPageFault)
	p, err := f.Advise()
	if errors.As(err, new(*vhosttest.Refused)) {
		s.Skipf("the backend has no userfaultfd to give: its process may not open one")
	}
	s.must(err, "send %v", wire.PostcopyAdvise)
	s.Cleanup(p.Close)
	return p
}

func postcopyAdvise(s *session) { s.postcopy() }

func postcopyMemory(s *session) {
	p := s.postcopy()
	s.must(p.Listen(), "send %v", wire.PostcopyListen)
	s.must(p.SetMemory(s.guest(1<<20, 1<<20)), "set memory after %v", wire.PostcopyListen)
	s.must(p.End(), "send %v", wire.PostcopyEnd)
}

func postcopyRefused(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	if f.Protocol.Has(wire.ProtocolPageFault) {
		s.Skipf("backend offers PAGEFAULT")
	}
	s.must(f.Send(wire.PostcopyAdvise, wire.FlagNeedReply, nil), "send %v", wire.PostcopyAdvise)
	m, err := f.Recv()
	if err == nil {
		defer m.Close()
		if v, err := wire.DecodeU64(m.Payload); len(m.FDs) > 0 || err == nil && v == 0 {
			s.Failf("POSTCOPY_ADVISE was answered by %v with %d descriptors", m.Header, len(m.FDs))
		}
	} else if !closed(err) {
		s.Failf("POSTCOPY_ADVISE: %v", err)
	}
	s.serves(f, "after POSTCOPY_ADVISE")
}

// states are the rules of DEVICE_STATE.
func states() []check {
	const source = "vhost-user.rst, Migrating back-end state"
	return []check{
		{id: "VHU-STATE-1", source: source,
			text: "A stopped device hands its state over, ends it by closing its end," +
				" and CHECK_DEVICE_STATE is answered by zero.",
			run: stateSaved},
		{id: "VHU-STATE-2", source: source,
			text: "A state that was saved can be loaded, before memory, features and rings are set.",
			run:  stateLoaded},
		{id: "VHU-STATE-3", source: source,
			text: "A state that is nonsense is found out by CHECK_DEVICE_STATE, or harmless.",
			run:  stateNonsense},
	}
}

// save opens a connection and returns the state of the device.
func (s *session) save() []byte {
	f := s.realizeWith(wire.ProtocolDeviceState)
	defer f.Close()
	state, err := f.SaveState()
	s.must(err, "save the device's state")
	return state
}

func stateSaved(s *session) { s.save() }

func stateLoaded(s *session) {
	state := s.save()
	f := s.realizeWith(wire.ProtocolDeviceState)
	s.must(f.LoadState(state), "load a state of %d bytes", len(state))
}

func stateNonsense(s *session) {
	f := s.realizeWith(wire.ProtocolDeviceState)
	err := f.LoadState(pattern(7, 1000))
	s.Notef("load a state that is nonsense: %v", err)
	s.serves(f, "after a state that was nonsense")
}
