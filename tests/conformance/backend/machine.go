// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// machine is a guest with a driver for the device that the profile describes.
type machine struct {
	*session
	f *vhosttest.Frontend
	g *vhosttest.Guest
	// queues are all that the driver sets up; q is the one for requests.
	queues []*vhosttest.Queue
	q      *vhosttest.Queue
	// features are what the driver accepts.
	features uint64

	idle []*Request          // may be put on the ring
	busy map[uint32]*Request // are on it, by head
	made int
	// length, if set, judges a length in the used ring.
	length func(r *Request, n uint32) bool
}

const (
	ringSize  = 64
	slots     = 16 // requests at a time
	memBlock  = 4 << 20
	dataBytes = 1024
)

// bootOptions say how a machine is set up; the zero value is what QEMU does.
type bootOptions struct {
	vhosttest.Options
	features uint64 // more feature bits, where offered
	stopped  bool   // neither start nor enable the rings
}

// boot makes a machine that runs. The check is not applicable where the device
// cannot be made to work.
func (s *session) boot(o bootOptions) *machine {
	s.need(s.cfg.Profile.Queues > 0, "needs a device that can be made to work (--device)")
	s.format()
	return s.bootRaw(o)
}

// format writes the profile's data to the device, once for all checks.
func (s *session) format() {
	p := s.cfg.Profile
	if p.Format == nil || s.peer.formatted {
		return
	}
	m := s.bootRaw(bootOptions{})
	for i := range slots {
		m.idle = []*Request{p.Format(m.g, m.g.Alloc, i)}
		m.work(1)
	}
	m.f.Close()
	s.peer.formatted = true
}

func (s *session) bootRaw(o bootOptions) *machine {
	p := s.cfg.Profile
	m := &machine{session: s, busy: make(map[uint32]*Request)}
	var err error
	if m.g, err = vhosttest.NewGuest(memBlock, memBlock); err != nil {
		s.Errorf("%v", err)
	}
	s.Cleanup(m.g.Close)
	for i := range p.Queues {
		m.queues = append(m.queues, m.newQueue(i, ringSize))
	}
	m.q = m.queues[p.Queue]
	o.Queues = m.queues
	m.f = s.realize(o.Options)
	m.features = uint64(m.f.Offered) & (1<<wire.FeatureVersion1 | p.Features | o.features)
	if !o.stopped {
		s.must(m.f.Start(m.g, m.features, m.queues...), "start the device")
	}
	return m
}

// ringState is the payload of a message that tells the ring's index and a number.
func (m *machine) ringState(n uint32) []byte {
	return wire.VringState{Index: uint32(m.q.Index), Num: n}.AppendTo(nil)
}

// newQueue makes a ring, and closes its eventfds with the check.
func (m *machine) newQueue(index, size int) *vhosttest.Queue {
	q, err := vhosttest.NewQueue(m.g, index, size)
	if err != nil {
		m.Errorf("%v", err)
	}
	m.Cleanup(q.Close)
	return q
}

// configure sends features and memory, all that comes before the rings.
func (m *machine) configure() {
	m.must(m.f.Start(m.g, m.features), "set features and memory")
}

// startRings starts all rings and enables them, or does not.
func (m *machine) startRings(enable bool) {
	for _, q := range m.queues {
		m.must(m.f.StartRing(q), "start ring %d", q.Index)
	}
	if enable {
		m.enable(true)
	}
}

func (m *machine) enable(on bool) {
	for _, q := range m.queues {
		m.must(m.f.Enable(q, on), "enable ring %d: %v", q.Index, on)
	}
}

// restart stops the rings and starts them again where they were.
func (m *machine) restart() {
	m.must(m.f.Stop(m.queues...), "stop the rings")
	m.startRings(true)
}

// request takes an unused request, or makes one.
func (m *machine) request() *Request {
	if len(m.idle) == 0 {
		m.idle = append(m.idle, m.newRequest(m.g.Alloc, dataBytes))
	}
	r := m.idle[0]
	m.idle = m.idle[1:]
	r.Clear()
	return r
}

// newRequest makes a request in memory of its own.
func (m *machine) newRequest(alloc func(uint64) uint64, n int) *Request {
	r := m.cfg.Profile.Request(m.g, alloc, m.made%slots, n)
	m.made++
	if r.Clear == nil {
		r.Clear = func() {}
	}
	return r
}

// put makes n requests available, without a kick.
func (m *machine) put(n int) {
	for range n {
		m.putRequest(m.request())
	}
}

func (m *machine) putRequest(r *Request) {
	head, err := m.q.Add(r.Buffers...)
	if err != nil {
		m.Errorf("%v", err)
	}
	m.busy[head] = r
}

// putIndirect makes a request available by a table at that address.
func (m *machine) putIndirect(r *Request, table uint64) {
	head, err := m.q.AddIndirect(table, r.Buffers...)
	if err != nil {
		m.Errorf("%v", err)
	}
	m.busy[head] = r
}

// followsTables has requests answered that are put by indirect tables.
func (m *machine) followsTables() {
	m.need(m.f.Offered.Has(wire.FeatureIndirectDesc), "backend does not offer INDIRECT_DESC")
	table := m.g.Alloc(vhosttest.PageSize)
	for range 4 {
		m.putIndirect(m.request(), table)
		m.kick()
		m.collect(1)
	}
}

func (m *machine) kick() {
	if err := m.q.Kick.Raise(); err != nil {
		m.Errorf("%v", err)
	}
}

// collect waits until n requests have been answered, and checks the answers.
func (m *machine) collect(n int) {
	for i := range n {
		u, err := m.q.Wait(m.cfg.Patience)
		if err != nil {
			m.Failf("request %d of %d was not answered: %v (the used index is %d)",
				i+1, n, err, m.q.UsedIdx())
		}
		m.answered(u)
	}
}

// answered checks one answer.
func (m *machine) answered(u vhosttest.Used) {
	r := m.busy[u.Head]
	if r == nil {
		m.Failf("the used ring names head %d, which is not outstanding", u.Head)
	}
	delete(m.busy, u.Head)
	if m.length != nil && !m.length(r, u.Len) {
		m.Failf("the device says that it wrote %d bytes into a chain with room for %d",
			u.Len, r.writable())
	}
	m.must(r.Check(u.Len), "check an answer")
	m.idle = append(m.idle, r)
}

// work has n requests answered, and no more.
func (m *machine) work(n int) {
	m.put(n)
	m.kick()
	m.collect(n)
	m.nothingMore("beyond the requests that there were")
}

// idles fails if the device answers a request within [quiet].
func (m *machine) idles(why string) {
	time.Sleep(quiet)
	m.nothingMore(why)
}

// nothingMore fails if there is another used element, of whatever head.
func (m *machine) nothingMore(why string) {
	u, err := m.q.Wait(0)
	if err == nil {
		m.Failf("the device used head %d %s", u.Head, why)
	}
	if !errors.Is(err, vhosttest.ErrTimeout) {
		m.Failf("the device used something %s: %v", why, err)
	}
}

// stopQueue stops the request queue and returns its base.
func (m *machine) stopQueue() uint16 {
	base, err := m.f.StopRing(m.q)
	m.must(err, "stop ring %d", m.q.Index)
	return base
}
