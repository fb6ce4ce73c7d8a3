// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// logging are the rules of the dirty log.
func logging() []check {
	const source = "vhost-user.rst, Migration"
	return []check{
		{id: "VHU-LOG-1", source: "vhost-user.rst, VHOST_USER_SET_LOG_BASE",
			text: "With LOG_SHMFD, SET_LOG_BASE is answered.", run: logAnswered},
		{id: "VHU-LOG-2", source: source,
			text: "Every page of data that the device writes is marked.", run: dataLogged},
		{id: "VHU-LOG-3", source: source,
			text: "With VHOST_VRING_F_LOG the pages of the used ring are marked.", run: usedRingLogged},
		{id: "VHU-LOG-4", source: source,
			text: "Marks for the used ring go by its log address, inside of guest memory or not.",
			run:  usedRingLogAddress},
		{id: "VHU-LOG-5", source: source,
			text: "Data is marked without VHOST_VRING_F_LOG, too.", run: dataLoggedWithoutRingFlag},
		{id: "VHU-LOG-6", source: source,
			text: "A page is marked after it was written: a log that is read in between loses nothing.",
			run:  loggedAfterWrite},
		{id: "VHU-LOG-7", source: source,
			text: "A request of several pages has all of them marked.", run: manyPagesLogged},
		{id: "VHU-LOG-8", source: source,
			text: "Without LOG_ALL nothing is marked.", run: nothingLoggedWithout},
		{id: "VHU-LOG-9", source: source,
			text: "All marks are made before the reply to GET_VRING_BASE, and none after it.",
			run:  loggedBeforeStop},
		{id: "VHU-LOG-10", source: source,
			text: "Logging can be switched off again, and the ring goes on.", run: loggingCancelled},
		{id: "VHU-LOG-11", source: "vhost-user.rst, Log description",
			text: "The log begins at its offset in the file.", run: logOffset},
		{id: "VHU-LOG-12", source: "VIRTIO 1.2, 2.7.5.3; vhost-user.rst, Migration",
			text: "What is written through an indirect table is marked.", run: indirectLogged},
		{id: "VHU-LOG-13", source: "vhost-user.rst, Migration: the log should be large enough",
			advice: true,
			text: "A log that is too small for the guest's memory is not written past its end," +
				" and does no harm.",
			run: logTooSmall},
		{id: "VHU-LOG-14", source: "vhost-user.rst, VHOST_USER_SET_LOG_BASE", advice: true,
			text: "SET_LOG_BASE without a descriptor, or with a log longer than its file, is refused.",
			run:  badLog},
	}
}

// logger is a machine with a log, which the Migration owns.
type logger struct {
	*machine
	*vhosttest.Migration
	cancelled bool
}

// migrate boots a machine and switches logging on.
func (s *session) migrate(o bootOptions) *logger {
	m := s.boot(o)
	m.needLog()
	mig, err := m.f.StartMigration(m.g, m.queues...)
	s.must(err, "switch logging on")
	l := &logger{machine: m, Migration: mig}
	s.Cleanup(func() {
		if !l.cancelled {
			mig.Close()
		}
	})
	return l
}

func (m *machine) needLog() {
	m.need(m.f.Offered.Has(wire.FeatureLogAll), "backend does not offer LOG_ALL")
	m.need(m.f.Negotiated.Has(wire.ProtocolLogSHMFD), "backend does not offer LOG_SHMFD")
}

// marked fails unless the log tells of all pages from addr to addr+n in time.
// The backend may mark the used ring a little after a driver sees it change.
func (l *logger) marked(what string, addr, n uint64) {
	want := make(map[uint64]bool)
	for p := addr / vhosttest.PageSize; p <= (addr+n-1)/vhosttest.PageSize; p++ {
		want[p] = true
	}
	for deadline := time.Now().Add(l.cfg.Patience / 4); ; time.Sleep(time.Millisecond) {
		for _, p := range l.Log.Harvest() {
			delete(want, p)
		}
		if len(want) == 0 {
			return
		}
		if time.Now().After(deadline) {
			for p := range want {
				l.Failf("the device wrote %s at page %#x and did not mark it", what, p)
			}
		}
	}
}

func logAnswered(s *session) {
	f := s.realizeWith(wire.ProtocolLogSHMFD)
	g := s.guest(1 << 20)
	s.must(f.SetMemory(g), "set memory")
	s.must(f.SetLog(s.log(g.End()), uint64(g.End()/vhosttest.PageSize/8)), "set a log")
	s.must(f.Barrier(), "ask after SET_LOG_BASE")
}

// log makes a log that is freed with the check.
func (s *session) log(end uint64) *vhosttest.Log {
	l := s.newLog(end)
	s.Cleanup(l.Close)
	return l
}

// newLog makes a log for a Migration to own.
func (s *session) newLog(end uint64) *vhosttest.Log {
	l, err := vhosttest.NewLog(end)
	if err != nil {
		s.Errorf("%v", err)
	}
	return l
}

// writes ends a check about data as not applicable if the device writes no data.
func (s *session) writes(r *Request) *Request {
	s.need(r.Data != 0, "the device writes no data for these requests")
	return r
}

func dataLogged(s *session) {
	l := s.migrate(bootOptions{})
	for range 4 {
		l.answeredAndMarked(l.request())
	}
}

// answeredAndMarked has a request answered, and fails unless its data is marked.
func (l *logger) answeredAndMarked(r *Request) {
	l.writes(r)
	l.Log.Harvest()
	l.putRequest(r)
	l.kick()
	l.collect(1)
	l.marked("data", r.Data, dataBytes)
}

func usedRingLogged(s *session) {
	l := s.migrate(bootOptions{})
	for range 4 {
		l.Log.Harvest()
		l.work(1)
		l.marked("the used ring", l.q.UsedRing, 8)
	}
}

func usedRingLogAddress(s *session) {
	l := s.migrate(bootOptions{})
	const elsewhere = 0x3000 // below the guest's memory
	a := l.q.Addr(wire.VringFLog)
	a.Log = elsewhere
	l.must(l.f.TellSync(wire.SetVringAddr, a.AppendTo(nil)), "set another log address")
	l.Log.Harvest()
	l.work(1)
	l.marked("the used ring, whose log address is elsewhere,", elsewhere, 8)
}

func dataLoggedWithoutRingFlag(s *session) {
	l := s.migrate(bootOptions{})
	l.must(l.f.TellSync(wire.SetVringAddr, l.q.Addr(0).AppendTo(nil)), "clear VHOST_VRING_F_LOG")
	l.answeredAndMarked(l.request())
}

// loggedAfterWrite reads the log all the time, as often as it can.
func loggedAfterWrite(s *session) {
	l := s.migrate(bootOptions{})
	s.writes(l.request())
	for range 50 {
		r := l.request()
		l.Round() // takes what the driver wrote itself
		l.putRequest(r)
		l.Round()
		l.kick()
		deadline := time.Now().Add(l.cfg.Patience)
		for {
			l.Round()
			if u, ok := l.q.Poll(); ok {
				l.answered(u)
				break
			}
			if time.Now().After(deadline) {
				s.Failf("a request was not answered while the log was read")
			}
		}
	}
	l.stopQueue()
	l.complete()
}

// complete fails unless the log has told of everything.
func (l *logger) complete() {
	if pages := l.Missing(); len(pages) > 0 {
		l.Failf("%d pages were written and are not in the log, page %#x among them", len(pages), pages[0])
	}
}

func manyPagesLogged(s *session) {
	l := s.migrate(bootOptions{})
	const n = 4 * vhosttest.PageSize
	r := s.writes(l.newRequest(l.g.Alloc, n))
	r.Clear()
	l.Log.Harvest()
	l.putRequest(r)
	l.kick()
	u, err := l.q.Wait(l.cfg.Patience)
	s.must(err, "wait for a request of %d bytes", n)
	l.answered(u)
	l.marked("data", r.Data, min(n, uint64(max(u.Len, 1))))
}

func nothingLoggedWithout(s *session) {
	m := s.boot(bootOptions{})
	m.needLog()
	log := s.log(m.g.End())
	s.must(m.f.SetLog(log, m.g.End()/vhosttest.PageSize/8), "set a log")
	m.work(slots)
	m.stopQueue()
	if pages := log.Harvest(); len(pages) > 0 {
		s.Failf("%d pages were marked while LOG_ALL was off, page %#x among them", len(pages), pages[0])
	}
}

func loggedBeforeStop(s *session) {
	l := s.migrate(bootOptions{})
	for range 10 {
		l.put(slots)
		l.Round()
		l.kick()
		l.stopQueue()
		l.complete()
		time.Sleep(quiet / 4)
		if pages := l.Log.Harvest(); len(pages) > 0 {
			s.Failf("page %#x was marked after the ring had stopped", pages[0])
		}
		l.startRequestQueue()
		l.collect(slots)
	}
}

func loggingCancelled(s *session) {
	l := s.migrate(bootOptions{})
	l.work(2)
	log := l.Log
	s.Cleanup(log.Close)
	l.Log = s.newLog(l.g.End()) // for Cancel to close
	l.cancelled = true
	s.must(l.Cancel(), "switch logging off")
	log.Harvest()
	l.work(slots)
	l.stopQueue()
	if pages := log.Harvest(); len(pages) > 0 {
		s.Failf("page %#x was marked after logging had been switched off", pages[0])
	}
}

func logOffset(s *session) {
	l := s.migrate(bootOptions{})
	// A file with a page before the log, which stands for 128 MiB.
	const before = vhosttest.PageSize * 8
	log := s.log(before*vhosttest.PageSize + l.g.End())
	s.must(log.Give(func(v wire.Log, fd int) error {
		v.Offset = vhosttest.PageSize
		v.Size -= v.Offset
		m, err := l.f.Ask(wire.SetLogBase, v.AppendTo(nil), fd)
		if err == nil {
			m.Close()
		}
		return err
	}), "set a log at an offset")
	l.work(1)
	l.stopQueue()
	want := before + l.q.UsedRing/vhosttest.PageSize
	if pages := log.Harvest(); !slices.Contains(pages, want) {
		s.Failf("the used ring was not marked at bit %d of the file; set are %v", want, pages)
	}
}

func indirectLogged(s *session) {
	l := s.migrate(bootOptions{features: 1 << wire.FeatureIndirectDesc})
	s.need(l.f.Offered.Has(wire.FeatureIndirectDesc), "backend does not offer INDIRECT_DESC")
	r := s.writes(l.request())
	l.putIndirect(r, l.g.Alloc(vhosttest.PageSize))
	l.Log.Harvest()
	l.kick()
	l.collect(1)
	l.marked("data", r.Data, dataBytes)
}

// logTooSmall gives a log that ends before the guest's memory begins, in a
// file that goes on.
func logTooSmall(s *session) {
	m := s.boot(bootOptions{})
	m.needLog()
	log := s.log(m.g.End())
	const size = 8
	err := m.f.SetLog(log, size)
	if err == nil {
		bits := m.features | 1<<wire.FeatureLogAll | uint64(m.f.Offered&(1<<wire.FeatureProtocolFeatures))
		err = m.f.TellSync(wire.SetFeatures, wire.U64(bits).AppendTo(nil))
	}
	if err == nil {
		err = m.f.TellSync(wire.SetVringAddr, m.q.Addr(wire.VringFLog).AppendTo(nil))
	}
	if err == nil { // the backend may also refuse the log, which is right
		m.put(4)
		m.kick()
		time.Sleep(quiet)
	}
	for _, p := range log.Harvest() {
		if p >= size*8 {
			s.Failf("a log of %d bytes was given, and bit %d was set", size, p)
		}
	}
	s.serves(m.f, "after a log that was too small")
}

func badLog(s *session) {
	g := s.guest(1 << 20)
	for _, withFD := range []bool{false, true} {
		f := s.realizeWith(wire.ProtocolLogSHMFD)
		s.must(f.SetMemory(g), "set memory")
		var fds []int
		var size uint64 = 4096
		if withFD {
			keep := func(_ wire.Log, fd int) error { fds = append(fds, fd); return nil }
			s.must(s.log(1<<20).Give(keep), "take the log's descriptor")
			size = 1 << 40
		}
		m, err := f.Ask(wire.SetLogBase, wire.Log{Size: size}.AppendTo(nil), fds...)
		if err == nil {
			v, decodeErr := wire.DecodeU64(m.Payload)
			m.Close()
			if decodeErr == nil && v == 0 {
				s.Failf("SET_LOG_BASE of %d bytes with %d descriptors was answered by success", size, len(fds))
			}
		} else if !closed(err) {
			s.Failf("SET_LOG_BASE of %d bytes with %d descriptors: %v", size, len(fds), err)
		}
		s.serves(f, "after a bad log")
	}
}
