// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// hostileRings are the rules of rings that no driver should write. The backend
// may break the ring, or use the chain without work, but must survive.
func hostileRings() []check {
	const source = "VIRTIO 1.2, 2.7.5; the guest is not trusted"
	hostile := func(id, text string, write func(m *machine)) check {
		return check{id: id, source: source, text: text, run: func(s *session) { hostileRing(s, write) }}
	}
	return []check{
		hostile("VHU-EVIL-1", "A chain that runs in a circle does no harm.", func(m *machine) {
			m.q.SetDesc(0, m.scratch(), 16, vhosttest.DescNext, 1)
			m.q.SetDesc(1, m.scratch(), 16, vhosttest.DescNext, 0)
			m.q.PutAvail(0)
		}),
		hostile("VHU-EVIL-2", "A buffer outside of memory does no harm.", func(m *machine) {
			m.q.SetDesc(0, 1<<45, 4096, vhosttest.DescWrite, 0)
			m.q.PutAvail(0)
		}),
		hostile("VHU-EVIL-3", "A buffer that runs over the end of memory does no harm.",
			func(m *machine) {
				m.q.SetDesc(0, m.g.End()-16, 1<<20, vhosttest.DescWrite, 0)
				m.q.PutAvail(0)
			}),
		hostile("VHU-EVIL-4", "A buffer whose address and length wrap around does no harm.",
			func(m *machine) {
				m.q.SetDesc(0, math.MaxUint64-15, math.MaxUint32, vhosttest.DescWrite, 0)
				m.q.PutAvail(0)
			}),
		hostile("VHU-EVIL-5", "A head that is not in the table does no harm.", func(m *machine) {
			m.q.PutAvail(ringSize + 1000)
		}),
		hostile("VHU-EVIL-6", "A link that leads out of the table does no harm.", func(m *machine) {
			m.q.SetDesc(0, m.scratch(), 16, vhosttest.DescNext, ringSize+7)
			m.q.PutAvail(0)
		}),
		hostile("VHU-EVIL-7",
			"An available index that jumps ahead by more than the ring does no harm.",
			func(m *machine) {
				m.q.SetAvailIdx(m.q.AvailIdx() + 3*ringSize)
			}),
		hostile("VHU-EVIL-8", "An available index that goes back does no harm.", func(m *machine) {
			m.work(4)
			m.q.SetAvailIdx(m.q.AvailIdx() - 2)
		}),
		hostile("VHU-EVIL-9", "An indirect table of a length that is no table's does no harm.",
			func(m *machine) {
				m.q.SetDesc(0, m.scratch(), 17, vhosttest.DescIndirect, 0)
				m.q.PutAvail(0)
			}),
		hostile("VHU-EVIL-10", "An indirect table in an indirect table does no harm.", func(m *machine) {
			table := m.scratch()
			m.g.Write(table, vhosttest.EncodeDesc(table, 16, vhosttest.DescIndirect, 0))
			m.q.SetDesc(0, table, 16, vhosttest.DescIndirect, 0)
			m.q.PutAvail(0)
		}),
		hostile("VHU-EVIL-11", "An indirect table of 4 GiB that runs in a circle does no harm.",
			func(m *machine) {
				table := m.scratch()
				m.g.Write(table, vhosttest.EncodeDesc(table, 16, vhosttest.DescNext, 0))
				m.q.SetDesc(0, table, math.MaxUint32&^15, vhosttest.DescIndirect, 0)
				m.q.PutAvail(0)
			}),
		hostile("VHU-EVIL-12", "A chain without a byte does no harm.", func(m *machine) {
			m.q.SetDesc(0, m.scratch(), 0, 0, 0)
			m.q.PutAvail(0)
		}),
		hostile("VHU-EVIL-13", "A device-readable buffer after a device-writable one does no harm.",
			func(m *machine) {
				m.q.SetDesc(0, m.scratch(), 512, vhosttest.DescWrite|vhosttest.DescNext, 1)
				m.q.SetDesc(1, m.scratch(), 512, 0, 0)
				m.q.PutAvail(0)
			}),
		hostile("VHU-EVIL-14", "Buffers of 4 GiB each, all in one chain, do no harm.", func(m *machine) {
			for i := range ringSize - 1 {
				flags := uint16(vhosttest.DescWrite | vhosttest.DescNext)
				m.q.SetDesc(i, m.g.Blocks[0].Addr, math.MaxUint32, flags, uint16(i+1))
			}
			m.q.SetDesc(ringSize-1, m.scratch(), 16, vhosttest.DescWrite, 0)
			m.q.PutAvail(0)
		}),
		hostile("VHU-EVIL-15", "Random descriptors do no harm.", randomDescriptors),
		{id: "VHU-EVIL-16", source: source, advice: true,
			text: "A broken ring does not keep the frontend from stopping it," +
				" nor the driver from starting anew.",
			run: brokenRingRestarts},
	}
}

func (m *machine) scratch() uint64 { return m.g.Alloc(vhosttest.PageSize) }

// hostileRing lets write write anything to a driver's ring. Then it checks that the backend
// still answers requests, stops the ring, and serves a correct driver.
func hostileRing(s *session, write func(*machine)) {
	m := s.boot(bootOptions{features: 1 << wire.FeatureIndirectDesc})
	write(m)
	m.kick()
	time.Sleep(quiet / 4)
	// The backend may have closed the connection. That must not affect later ones.
	if _, err := m.f.StopRing(m.q); err != nil && !closed(err) {
		s.Failf("stop the ring that a hostile driver wrote: %v", err)
	}
	s.serves(m.f, "after a hostile ring")
	good := s.boot(bootOptions{})
	good.work(2)
}

func randomDescriptors(m *machine) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range ringSize {
		addr := m.g.Blocks[0].Addr + rnd.Uint64N(m.g.Blocks[0].Size())
		if rnd.IntN(8) == 0 {
			addr = rnd.Uint64()
		}
		// Ring memory may be hit: the guest owns it.
		m.q.SetDesc(i, addr, rnd.Uint32N(1<<16), uint16(rnd.UintN(8)), uint16(rnd.UintN(ringSize+4)))
	}
	for range ringSize {
		m.q.PutAvail(uint16(rnd.UintN(ringSize + 4)))
	}
}

func brokenRingRestarts(s *session) {
	m := s.boot(bootOptions{})
	m.work(2)
	m.q.PutAvail(ringSize + 1000)
	m.kick()
	time.Sleep(quiet / 4)
	if _, err := m.f.StopRing(m.q); err != nil {
		s.Failf("stop a broken ring: %v", err)
	}
	m.busy = make(map[uint32]*Request)
	m.q.Reset()
	m.startRequestQueue()
	m.work(4)
}

// hostileFrontends are the rules of frontends that disconnect early or send false data.
func hostileFrontends() []check {
	const source = "vhost-user.rst, Communication"
	return []check{
		{id: "VHU-DEAD-1", source: source,
			text: "A frontend that dies within a header does no harm.", run: diesInHeader},
		{id: "VHU-DEAD-2", source: source,
			text: "A frontend that dies within a payload does no harm.", run: diesInPayload},
		{id: "VHU-DEAD-3", source: source,
			text: "A frontend that dies at any step of its start does no harm.", run: diesWhileStarting},
		{id: "VHU-DEAD-4", source: "vhost-user.rst, VHOST_USER_SET_MEM_TABLE", advice: true,
			text: "Guest memory that is truncated under the backend does not kill it.",
			run:  truncatedMemory},
		{id: "VHU-DEAD-5", source: "vhost-user.rst, VHOST_USER_SET_LOG_BASE", advice: true,
			text: "A log that is truncated under the backend does not kill it.", run: truncatedLog},
		{id: "VHU-DEAD-6", source: source, advice: true,
			text: "Requests out of their order do no harm.", run: outOfOrder},
		{id: "VHU-DEAD-7", source: source, advice: true,
			text: "Sixteen descriptors with a request do no harm.", run: manyFDs},
	}
}

func diesInHeader(s *session) {
	for _, n := range []int{1, 7, 11} {
		f := s.connect()
		s.must(f.SendRaw(make([]byte, n)), "send %d bytes of a header", n)
		s.serves(f, "after %d bytes of a header", n)
	}
}

func diesInPayload(s *session) {
	for _, n := range []int{0, 1, 7} {
		f := s.connect()
		h := wire.Header{Request: uint32(wire.SetFeatures), Flags: wire.Version, Size: 8}
		s.must(f.SendRaw(append(h.AppendTo(nil), make([]byte, n)...)), "send a part of a message")
		s.serves(f, "after %d bytes of a payload", n)
	}
}

func diesWhileStarting(s *session) {
	// How many steps there are does not matter: after the last, all is set up.
	for step := range 8 {
		m := s.boot(bootOptions{stopped: true})
		kick := wire.VringFD{Index: uint32(m.q.Index)}.AppendTo(nil)
		steps := []func() error{
			func() error { return m.f.SetFeatures(m.features) },
			func() error { return m.f.SetMemory(m.g) },
			func() error { return m.f.Tell(wire.SetVringNum, m.ringState(ringSize)) },
			func() error { return m.f.Tell(wire.SetVringBase, m.ringState(0)) },
			func() error { return m.f.SetAddr(m.q) },
			func() error { return m.f.Tell(wire.SetVringKick, kick, m.q.Kick.FD) },
			func() error { return m.f.SetCall(m.q) },
			func() error { return m.f.Enable(m.q, true) },
		}
		for i := range step + 1 {
			s.must(steps[i](), "step %d of a start", i)
		}
		s.serves(m.f, "after a frontend died at step %d of its start", step)
	}
	s.boot(bootOptions{}).work(2)
}

func truncatedMemory(s *session) {
	m := s.boot(bootOptions{})
	m.work(1)
	// The rings are in the first block, the requests may be in either.
	m.put(2)
	s.must(m.g.Blocks[0].Truncate(), "truncate memory")
	m.kick()
	time.Sleep(quiet / 2)
	s.serves(m.f, "after guest memory was truncated")
	s.boot(bootOptions{}).work(2)
}

func truncatedLog(s *session) {
	l := s.migrate(bootOptions{})
	l.work(1)
	s.must(l.Log.Truncate(), "truncate the log")
	l.put(2)
	l.kick()
	time.Sleep(quiet / 2)
	s.serves(l.f, "after the log was truncated")
	s.boot(bootOptions{}).work(2)
}

func outOfOrder(s *session) {
	kick := s.event()
	for _, r := range []struct {
		req     wire.Request
		payload []byte
		fds     []int
	}{
		{wire.SetVringKick, wire.VringFD{}.AppendTo(nil), []int{kick.FD}},
		{wire.SetVringEnable, wire.VringState{Num: 1}.AppendTo(nil), nil},
		{wire.SetVringAddr, wire.VringAddr{}.AppendTo(nil), nil},
		{wire.GetVringBase, wire.VringState{}.AppendTo(nil), nil},
		{wire.SetLogBase, wire.Log{Size: 8}.AppendTo(nil), nil},
		{wire.RemMemReg, wire.SingleMemRegion{}.AppendTo(nil), nil},
		{wire.PostcopyListen, nil, nil},
		{wire.PostcopyEnd, nil, nil},
		{wire.CheckDeviceState, nil, nil},
		{wire.VringKick, wire.VringState{}.AppendTo(nil), nil},
		{wire.SetInflightFD, inflightPayload(0, 1), nil},
	} {
		f := s.connect()
		s.must(f.Send(r.req, 0, r.payload, r.fds...), "send %v", r.req)
		time.Sleep(time.Millisecond)
		s.serves(f, "after %v as the first request", r.req)
	}
}

func manyFDs(s *session) {
	e := s.event()
	fds := make([]int, 16)
	for i := range fds {
		fds[i] = e.FD
	}
	f := s.connect()
	err := f.Send(wire.SetMemTable, 0, wire.MemTable{}.AppendTo(nil), fds...)
	if err != nil && !closed(err) {
		s.Failf("send 16 descriptors: %v", err)
	}
	s.serves(f, "after 16 descriptors")
}
