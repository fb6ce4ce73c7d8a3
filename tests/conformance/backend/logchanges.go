// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// logChanges are the rules of what changes while logging is on.
func logChanges() []check {
	const source = "vhost-user.rst, Migration"
	return []check{
		{id: "VHU-LOGX-1",
			source: "vhost-user.rst, VHOST_USER_SET_LOG_BASE; QEMU 10.0, vhost_dev_log_resize",
			text:   "After the reply to another SET_LOG_BASE only the new log is written.", run: logSwapped},
		{id: "VHU-LOGX-2", source: source,
			text: "A log that is swapped under load loses nothing.", run: logSwappedUnderLoad},
		{id: "VHU-LOGX-3", source: "QEMU 10.0, vhost_commit",
			text: "Memory that is added while logging is on is logged, without another SET_LOG_BASE.",
			run:  addedMemoryLogged},
		{id: "VHU-LOGX-4", source: "QEMU 10.0, vhost_commit",
			text: "A memory table that is set while logging is on is logged.", run: newTableLogged},
		{id: "VHU-LOGX-5", source: "QEMU 10.0, vhost_dev_start",
			text: "A device that is started while logging is on logs from its start.",
			run:  startedWhileLogging},
	}
}

func logSwapped(s *session) {
	l := s.migrate(bootOptions{})
	l.work(1)
	old := l.Log
	s.Cleanup(old.Close)
	l.Log = s.newLog(l.g.End())
	s.must(l.f.SetLog(l.Log, l.g.End()/vhosttest.PageSize/8), "set another log")
	old.Harvest()
	l.work(slots)
	l.marked("the used ring", l.q.UsedRing, 8)
	l.stopQueue()
	if pages := old.Harvest(); len(pages) > 0 {
		s.Failf("page %#x was marked in a log that had been replaced", pages[0])
	}
}

func logSwappedUnderLoad(s *session) {
	l := s.migrate(bootOptions{})
	for range 10 {
		l.put(slots)
		l.Round()
		l.kick()
		s.must(l.SwapLog(), "swap the log")
		l.collect(slots)
	}
	l.stopQueue()
	l.complete()
}

func addedMemoryLogged(s *session) {
	l := s.migrate(bootOptions{})
	s.need(l.f.Negotiated.Has(wire.ProtocolConfigureMemSlots),
		"backend does not offer CONFIGURE_MEM_SLOTS")
	l.inNewMemory(func(b *vhosttest.Block) error { return l.f.AddBlock(b) })
}

func newTableLogged(s *session) {
	l := s.migrate(bootOptions{Options: withoutSlots})
	l.inNewMemory(func(*vhosttest.Block) error { return l.f.SetTable(l.g) })
}

// inNewMemory adds memory that the current log already covers, and has requests answered
// there.
func (l *logger) inNewMemory(tell func(*vhosttest.Block) error) {
	big := l.newLog(l.g.End() + 1<<20)
	l.must(l.f.SetLog(big, (l.g.End()+1<<20)/vhosttest.PageSize/8+8), "set a log with room")
	l.Log.Close()
	l.Log = big
	b := l.addBlock(1 << 20)
	l.must(tell(b), "tell of new memory")
	r := l.newRequest(b.Alloc, dataBytes)
	r.Clear()
	l.answeredAndMarked(r)
}

// startedWhileLogging follows QEMU: features with LOG_ALL, the rings, the log,
// then the rings are enabled.
func startedWhileLogging(s *session) {
	l := s.migrate(bootOptions{})
	l.work(2)
	s.must(l.f.Stop(l.queues...), "stop the rings")
	s.must(l.f.SetFeatures(l.features), "set features with LOG_ALL")
	l.startRings(false)
	l.put(2)
	l.kick()
	s.must(l.SwapLog(), "set a log")
	l.Round()
	l.enable(true)
	l.collect(2)
	l.stopQueue()
	l.complete()
}
