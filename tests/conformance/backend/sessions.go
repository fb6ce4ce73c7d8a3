// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// sessions are the rules of one connection after another.
func sessions() []check {
	return []check{
		{id: "VHU-CONN-1", source: "vhost-user.rst, Communication: a reconnection mechanism is optional", advice: true,
			text: "After a frontend has left the backend serves the next one.", run: reconnect},
		{id: "VHU-CONN-2", source: "vhost-user.rst, Ring states",
			text: "A connection begins anew: what an earlier one set up is forgotten.", run: freshConnection},
		{id: "VHU-CONN-3", source: "vhost-user.rst, Communication",
			text: "A frontend that leaves with requests on the ring does the backend no harm.", run: leaveBusy},
		{id: "VHU-CONN-4", source: "vhost-user.rst, Communication",
			text: "After a frontend has left, its guest's memory is not written any more.", run: quietAfterLeave},
		{id: "VHU-CONN-5", source: "QEMU 10.0, vhost_user_blk_chr_event: a driver goes on with another connection",
			text: "A driver whose frontend connects again goes on at the used index.", run: driverGoesOn},
	}
}

func reconnect(s *session) {
	for range 5 {
		f, err := s.peer.dial(s.Context(), s.cfg.Patience)
		s.must(err, "connect again")
		f.Close()
		if len(s.peer.command) > 0 && s.peer.crashedOrLeft() {
			s.Failf("the backend ended with its frontend")
		}
	}
}

// crashedOrLeft says whether the process ends by itself within a moment.
func (p *peer) crashedOrLeft() bool {
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
		if at := firstDifference(before[i], after); at >= 0 && b.Addr+uint64(at) >= m.q.UsedRing && b.Addr+uint64(at) < m.q.UsedRing+vhosttest.PageSize {
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

// channels are the rules of the backend's own requests, and of features that
// change who sends what.
func channels() []check {
	return []check{
		{id: "VHU-REQ-1", source: "vhost-user.rst, VHOST_USER_SET_BACKEND_REQ_FD",
			text: "SET_BACKEND_REQ_FD is accepted, and a later channel replaces the one before.", run: backendChannel},
		{id: "VHU-REQ-2", source: "vhost-user.rst, VHOST_USER_SET_BACKEND_REQ_FD",
			text: "SET_BACKEND_REQ_FD without a descriptor is refused.", run: backendChannelWithoutFD},
		{id: "VHU-REQ-3", source: "vhost-user.rst, Back-end communication",
			text: "A frontend that closes its end of the channel does the device no harm.", run: backendChannelClosed},
		{id: "VHU-INB-1", source: "vhost-user.rst, In-band notifications",
			text: "With INBAND_NOTIFICATIONS the ring is kicked by VRING_KICK.", run: inbandKick},
		{id: "VHU-TLB-1", source: "vhost-user.rst, VHOST_USER_IOTLB_MSG",
			text: "With ACCESS_PLATFORM an update of the IOTLB is answered by zero, one outside of memory by another value.", run: iotlb},
		{id: "VHU-POST-1", source: "vhost-user.rst, VHOST_USER_POSTCOPY_ADVISE",
			text: "With PAGEFAULT, POSTCOPY_ADVISE is answered by a userfaultfd.", run: postcopyAdvise},
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
	m := s.boot(bootOptions{stopped: true, Options: vhosttest.Options{Extra: 1 << wire.ProtocolInbandNotify}})
	s.need(m.f.Negotiated.Has(wire.ProtocolInbandNotify), "backend does not offer INBAND_NOTIFICATIONS")
	m.configure()
	// Without SET_VRING_KICK: a descriptor would be preferred to the message.
	state := func(n uint32) []byte { return wire.VringState{Index: uint32(m.q.Index), Num: n}.AppendTo(nil) }
	m.must(m.f.Tell(wire.SetVringNum, state(ringSize)), "set ring size")
	m.must(m.f.Tell(wire.SetVringBase, state(0)), "set ring base")
	m.must(m.f.SetAddr(m.q), "set ring address")
	m.must(m.f.SetCall(m.q), "set call descriptor")
	m.must(m.f.Enable(m.q, true), "enable the ring")
	for range 3 {
		m.put(2)
		m.must(m.f.TellSync(wire.VringKick, wire.VringState{Index: uint32(m.q.Index)}.AppendTo(nil)), "kick in band")
		m.collect(2)
	}
}

// featureAccessPlatform is VIRTIO_F_ACCESS_PLATFORM.
const featureAccessPlatform = 33

func iotlb(s *session) {
	m := s.boot(bootOptions{stopped: true, features: 1 << featureAccessPlatform})
	s.need(m.f.Offered.Has(featureAccessPlatform), "backend does not offer ACCESS_PLATFORM")
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
	good := wire.IOTLB{IOVA: 1 << 40, Size: 4096, UserAddr: r.UserAddr, Perm: wire.IOTLBRead | wire.IOTLBWrite, Type: wire.IOTLBUpdate}
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

func postcopyAdvise(s *session) {
	f := s.realizeWith(wire.ProtocolPageFault)
	m, err := f.Ask(wire.PostcopyAdvise, nil)
	s.must(err, "send %v", wire.PostcopyAdvise)
	defer m.Close()
	if len(m.FDs) == 0 {
		s.Skipf("the backend has no userfaultfd to give: its process may not open one")
	}
	if len(m.FDs) != 1 {
		s.Failf("POSTCOPY_ADVISE was answered by %d descriptors", len(m.FDs))
	}
	v, err := f.AskU64(wire.PostcopyEnd)
	s.must(err, "send %v", wire.PostcopyEnd)
	if v != 0 {
		s.Failf("POSTCOPY_END was answered by %d", v)
	}
}

func postcopyRefused(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	if f.Protocol.Has(wire.ProtocolPageFault) {
		s.Skipf("backend offers PAGEFAULT")
	}
	err := f.Confirm(wire.PostcopyAdvise, nil)
	if err == nil {
		s.Failf("POSTCOPY_ADVISE was acknowledged as a success")
	}
	if !errors.As(err, new(*vhosttest.Refused)) && !closed(err) {
		s.Failf("POSTCOPY_ADVISE: %v", err)
	}
	s.serves(f, "after POSTCOPY_ADVISE")
}

// states are the rules of DEVICE_STATE.
func states() []check {
	const source = "vhost-user.rst, Migrating back-end state"
	return []check{
		{id: "VHU-STATE-1", source: source,
			text: "A stopped device hands its state over, ends it by closing its end, and CHECK_DEVICE_STATE is answered by zero.", run: stateSaved},
		{id: "VHU-STATE-2", source: source,
			text: "A state that was saved can be loaded, before memory, features and rings are set.", run: stateLoaded},
		{id: "VHU-STATE-3", source: source,
			text: "A state that is nonsense is found out by CHECK_DEVICE_STATE, or harmless.", run: stateNonsense},
	}
}

// transfer begins a transfer and returns the frontend's end of the pipe.
func (s *session) transfer(f *vhosttest.Frontend, dir wire.Direction) int {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		s.Errorf("make pipe: %v", err)
	}
	theirs, ours := p[1], p[0]
	if dir == wire.Load {
		theirs, ours = p[0], p[1]
	}
	m, err := f.Ask(wire.SetDeviceStateFD, wire.DeviceState{Direction: dir, Phase: wire.PhaseStopped}.AppendTo(nil), theirs)
	unix.Close(theirs)
	if err != nil {
		unix.Close(ours)
		s.Failf("send %v: %v", wire.SetDeviceStateFD, err)
	}
	status, err := wire.DecodeU64(m.Payload)
	if err != nil || status&0xff != 0 {
		m.Close()
		unix.Close(ours)
		s.Failf("SET_DEVICE_STATE_FD to %v was answered by %v (%v)", dir, status, err)
	}
	if status&wire.StateNoFD == 0 && len(m.FDs) == 1 {
		unix.Close(ours)
		ours = m.TakeFD(0)
	}
	m.Close()
	return ours
}

// checkState returns the answer to CHECK_DEVICE_STATE.
func (s *session) checkState(f *vhosttest.Frontend) uint64 {
	v, err := f.AskU64(wire.CheckDeviceState)
	s.must(err, "send %v", wire.CheckDeviceState)
	return v
}

func (s *session) saveState() []byte {
	f := s.realizeWith(wire.ProtocolDeviceState)
	defer f.Close()
	fd := s.transfer(f, wire.Save)
	state, err := s.readAll(fd)
	s.must(err, "read the device's state")
	if v := s.checkState(f); v != 0 {
		s.Failf("after a state was saved CHECK_DEVICE_STATE was answered by %d", v)
	}
	return state
}

// readAll reads a pipe to its end, and closes it.
func (s *session) readAll(fd int) ([]byte, error) {
	defer unix.Close(fd)
	var all []byte
	deadline := time.Now().Add(s.cfg.Patience)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return all, errors.New("the backend does not close its end")
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		var b [4096]byte
		n, err = unix.Read(fd, b[:])
		if err != nil || n == 0 {
			return all, err
		}
		all = append(all, b[:n]...)
	}
}

func stateSaved(s *session) { s.saveState() }

func (s *session) loadState(state []byte) uint64 {
	f := s.realizeWith(wire.ProtocolDeviceState)
	defer f.Close()
	fd := s.transfer(f, wire.Load)
	_, err := unix.Write(fd, state)
	unix.Close(fd)
	if err != nil && !errors.Is(err, unix.EPIPE) {
		s.Failf("write the device's state: %v", err)
	}
	return s.checkState(f)
}

func stateLoaded(s *session) {
	if v := s.loadState(s.saveState()); v != 0 {
		s.Failf("after a state was loaded CHECK_DEVICE_STATE was answered by %d", v)
	}
}

func stateNonsense(s *session) {
	s.Notef("CHECK_DEVICE_STATE was answered by %d", s.loadState(pattern(7, 1000)))
	s.serves(s.connect(), "after a state that was nonsense")
}
