// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// inflight are the rules of INFLIGHT_SHMFD, for split rings.
func inflight() []check {
	const source = "vhost-user.rst, Inflight I/O tracking"
	return []check{
		{id: "VHU-INF-1", source: "vhost-user.rst, VHOST_USER_GET_INFLIGHT_FD",
			text: "GET_INFLIGHT_FD is answered by a file that has room for all queues.", run: inflightRoom},
		{id: "VHU-INF-2", source: source,
			text: "When all requests have been answered, none is marked as in flight," +
				" and used_idx is that of the ring.",
			run: inflightIdle},
		{id: "VHU-INF-3", source: source,
			text: "Requests that were in flight when a backend died are answered by the next," +
				" and each once.",
			run: inflightResubmitted},
		{id: "VHU-INF-4", source: source,
			text: "A batch that was on the used ring when the backend died is not done again.",
			run:  inflightLastBatch},
		{id: "VHU-INF-5", source: "vhost-user.rst, VHOST_USER_SET_INFLIGHT_FD", advice: true,
			text: "A region that is too small for its queues, or full of nonsense," +
				" does the backend no harm.",
			run: inflightNonsense},
	}
}

// The region of one queue, struct QueueRegionSplit.
const (
	inflightHeader  = 16
	inflightDesc    = 16
	inflightUsedIdx = 14
)

// inflightRegion is the shared memory of INFLIGHT_SHMFD.
type inflightRegion struct {
	fd     int
	mem    []byte
	stride uint64
}

// inflightPayload describes a region that begins its file.
func inflightPayload(size uint64, queues int) []byte {
	return wire.Inflight{MmapSize: size, NumQueues: uint16(queues), QueueSize: ringSize}.AppendTo(nil)
}

// getInflight asks for a region for all queues of the machine.
func (m *machine) getInflight() *inflightRegion {
	n := len(m.queues)
	reply, err := m.f.Ask(wire.GetInflightFD, inflightPayload(0, n))
	m.must(err, "ask for an inflight region")
	m.Cleanup(reply.Close)
	v, err := wire.DecodeInflight(reply.Payload)
	if err != nil || len(reply.FDs) != 1 {
		m.Failf("GET_INFLIGHT_FD was answered by %d bytes and %d descriptors: %v",
			len(reply.Payload), len(reply.FDs), err)
	}
	size, offset := v.MmapSize, v.MmapOffset
	if want := uint64(n) * (inflightHeader + ringSize*inflightDesc); size < want {
		m.Failf("a region for %d queues of %d has %d bytes, not %d", n, ringSize, size, want)
	}
	fd := reply.TakeFD(0)
	m.Cleanup(func() { unix.Close(fd) })
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || uint64(st.Size) < offset+size {
		m.Failf("a region of %d bytes at %d is in a file of %d bytes (%v)", size, offset, st.Size, err)
	}
	const prot = unix.PROT_READ | unix.PROT_WRITE
	mem, err := unix.Mmap(fd, int64(offset), int(size), prot, unix.MAP_SHARED)
	m.must(err, "map the inflight region")
	m.Cleanup(func() { _ = unix.Munmap(mem) })
	return &inflightRegion{fd: fd, mem: mem, stride: size / uint64(n)}
}

// setInflight gives the region to the backend.
func (m *machine) setInflight(r *inflightRegion) {
	m.must(m.f.TellSync(wire.SetInflightFD, inflightPayload(uint64(len(r.mem)), len(m.queues)), r.fd),
		"set the inflight region")
}

// queue returns the region of queue i.
func (r *inflightRegion) queue(i int) []byte { return r.mem[uint64(i)*r.stride:][:r.stride] }

// bootInflight boots a machine up to where the rings would start.
func (s *session) bootInflight() *machine {
	inflight := vhosttest.Options{Extra: 1 << wire.ProtocolInflightSHMFD}
	m := s.boot(bootOptions{stopped: true, Options: inflight})
	s.need(m.f.Negotiated.Has(wire.ProtocolInflightSHMFD), "backend does not offer INFLIGHT_SHMFD")
	m.configure()
	return m
}

func inflightRoom(s *session) { s.bootInflight().getInflight() }

func inflightIdle(s *session) {
	m := s.bootInflight()
	r := m.getInflight()
	m.setInflight(r)
	m.startRings(true)
	m.work(5)
	m.stopQueue()
	q := r.queue(m.q.Index)
	if got := le.Uint16(q[inflightUsedIdx:]); got != 5 {
		s.Failf("after 5 requests used_idx of the inflight region is %d", got)
	}
	for i := range ringSize {
		if q[inflightHeader+i*inflightDesc] != 0 {
			s.Failf("descriptor %d is marked as in flight, and all requests have been answered", i)
		}
	}
}

// died makes a region as a backend leaves it: the requests of heads are in
// flight, in that order.
func (m *machine) died(r *inflightRegion, heads ...uint32) []byte {
	q := r.queue(m.q.Index)
	clear(q)
	le.PutUint16(q[8:], 1) // version
	le.PutUint16(q[10:], ringSize)
	le.PutUint16(q[inflightUsedIdx:], m.q.UsedIdx())
	for i, h := range heads {
		d := q[inflightHeader+h*inflightDesc:]
		d[0] = 1
		le.PutUint64(d[8:], uint64(i))
	}
	return q
}

// putHeads makes n requests available and returns their heads.
func (m *machine) putHeads(n int) []uint32 {
	var heads []uint32
	for range n {
		r := m.request()
		head, err := m.q.Add(r.Buffers...)
		if err != nil {
			m.Errorf("%v", err)
		}
		m.busy[head] = r
		heads = append(heads, head)
	}
	return heads
}

func inflightResubmitted(s *session) {
	m := s.bootInflight()
	r := m.getInflight()
	heads := m.putHeads(4)
	m.died(r, heads[2], heads[0], heads[1]) // the fourth was not fetched
	m.setInflight(r)
	// QEMU starts a ring of a backend that died at the used index.
	m.q.Resume()
	m.startRings(true)
	m.kick()
	var order []uint32
	for range heads {
		u, err := m.q.Wait(m.cfg.Patience)
		s.must(err, "wait for a request that was in flight")
		m.answered(u)
		order = append(order, u.Head)
	}
	m.idles("twice")
	if order[3] != heads[3] {
		s.Notef("requests %v were in flight, %d was new; they were answered in the order %v",
			heads[:3], heads[3], order)
	}
	m.work(3)
}

// inflightLastBatch checks the recovery from a backend that died after it wrote the used
// index, and before it cleared the marks of in-flight requests.
func inflightLastBatch(s *session) {
	m := s.bootInflight()
	r := m.getInflight()
	m.setInflight(r)
	m.startRings(true)
	m.work(1)
	m.f.Close()
	head := le.Uint32(m.g.Read(m.q.UsedRing+4, 4))
	q := m.died(r, head)
	le.PutUint16(q[12:], uint16(head)) // last_batch_head
	le.PutUint16(q[inflightUsedIdx:], 0)

	m.f = s.realize(vhosttest.Options{Extra: 1 << wire.ProtocolInflightSHMFD, Queues: m.queues})
	m.configure()
	m.setInflight(r)
	m.q.Resume()
	m.startRings(true)
	m.kick()
	m.idles("that was on the used ring when the backend died")
	m.work(3)
}

func inflightNonsense(s *session) {
	for _, kind := range []string{"too small", "all bits set"} {
		m := s.bootInflight()
		r := m.getInflight()
		if kind == "all bits set" {
			for i := range r.mem {
				r.mem[i] = 0xff
			}
			_ = m.f.TellSync(wire.SetInflightFD, inflightPayload(uint64(len(r.mem)), len(m.queues)), r.fd)
		} else {
			_ = m.f.TellSync(wire.SetInflightFD, inflightPayload(8, len(m.queues)), r.fd)
		}
		if m.f.StartRing(m.q) == nil {
			_ = m.f.Enable(m.q, true)
			m.put(1)
			m.kick()
		}
		s.serves(m.f, "after an inflight region that is %s", kind)
	}
}
