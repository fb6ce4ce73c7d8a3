// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// fpWindow are the rules of the hint window that bind the backend.
func fpWindow() []check {
	const (
		fetch    = "window.md, Fetching it"
		layout   = "window.md, Layout"
		exchange = "window.md, One exchange"
		order    = "window.md, The order"
	)
	return []check{
		{id: "FBPP-WIN-1", source: fetch,
			text: "The memfd has exactly the size of the reply, at least 8192 and a multiple of 4096," +
				" and is sealed.",
			run: fpWindowFile},
		{id: "FBPP-WIN-2", source: fetch,
			text: "Each connection has a new window.", run: fpNewWindow},
		{id: "FBPP-WIN-3", source: layout,
			text: "The window begins with its magic, version and capacity.", run: fpWindowHeader},
		{id: "FBPP-WIN-4", source: layout,
			text: "Ranges are sorted, disjoint, not adjacent, not empty, and made of whole pages.",
			run:  fpRanges},
		{id: "FBPP-WIN-5", source: exchange,
			text: "Every request is answered before its deadline, also when the driver is silent.",
			run:  fpSilentDriver},
		{id: "FBPP-WIN-6", source: exchange,
			text: "A signal without a new request is no request.", run: fpSpurious},
		{id: "FBPP-WIN-7", source: exchange,
			text: "A request that is given up stops, and the next one is answered.", run: fpGivenUp},
		{id: "FBPP-WIN-8", source: exchange,
			text: "An answer that was published is not written any more, until a newer request.",
			run:  fpPublished},
		{id: "FBPP-WIN-9", source: fetch,
			text: "A request of version 2 is answered by version 1 or 2," +
				" and by no feature that it does not name.",
			run: fpVersion2},
		{id: "FBPP-WIN-10", source: order,
			text: "Hot and cold ranges are as free ones have to be, and no page is in two lists.",
			run:  fpOrder},
		{id: "FBPP-WIN-11", source: order,
			text: "An answer that is not ok has no order.", run: fpNoOrder},
	}
}

var windowOptions = vhosttest.Options{Extra: 1 << windowFeature}

// withWindow fetches the window of a machine whose device is not started.
func (m *machine) withWindow() *freePageMachine {
	m.need(m.f.Negotiated.Has(windowFeature), "backend does not offer the hint window")
	fm := &freePageMachine{machine: m, buffers: make(map[uint32]uint64)}
	fm.fetchWindow(nil)
	return fm
}

// until makes requests until one ends with this status.
func (m *freePageMachine) until(status uint32, when string) {
	var a answer
	end := time.Now().Add(m.cfg.Patience)
	for ; time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		m.ask()
		if a = m.answer(); a.status == status {
			return
		}
	}
	m.Failf("%s: requests end with status %v", when, a)
}

func deadlineAfter(d time.Duration) time.Time { return time.Now().Add(d) }

func fpWindowFile(s *session) {
	m := s.boot(bootOptions{stopped: true, Options: windowOptions}).withWindow()
	var st unix.Stat_t
	if err := unix.Fstat(m.fds[0], &st); err != nil {
		s.Failf("look at the window's file: %v", err)
	}
	size := len(m.window)
	if st.Size != int64(size) || size < 8192 || size > 256<<20 || size%4096 != 0 {
		s.Failf("the reply says %d bytes, the file has %d", size, st.Size)
	}
	seals, err := unix.FcntlInt(uintptr(m.fds[0]), unix.F_GET_SEALS, 0)
	s.must(err, "read the seals")
	if want := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL; seals&want != want {
		s.Failf("the file has the seals %#x, not %#x", seals, want)
	}
}

func fpNewWindow(s *session) {
	inode := func() (uint64, uint64) {
		m := s.bootDriver()
		defer m.f.Close()
		var st unix.Stat_t
		if err := unix.Fstat(m.fds[0], &st); err != nil {
			s.Failf("look at the window's file: %v", err)
		}
		done := le.Uint64(m.window[winDone:])
		m.exchange()
		return st.Ino, done
	}
	first, _ := inode()
	second, done := inode()
	if first == second || done != 0 {
		s.Failf("the second connection has the window of the first, or a done_generation: %d", done)
	}
}

func fpWindowHeader(s *session) {
	m := s.boot(bootOptions{stopped: true, Options: windowOptions}).withWindow()
	le32, le64 := le.Uint32, le.Uint64
	magic, version, capacity := le32(m.window), le32(m.window[4:]), le64(m.window[8:])
	want := (uint64(len(m.window)) - 4096) / 16
	if magic != 0x50504246 || version != 1 || capacity != want {
		s.Failf("magic %#x, version %d, capacity %d of %d", magic, version, capacity, want)
	}
}

func fpRanges(s *session) {
	m := s.bootDriver()
	m.ask()
	// Neighbours, in the wrong order, and of several orders.
	pfn := block(0).PFN()
	m.post(lastReport(m.await(protocol.EventReportFree).Generation,
		block(9), block(8), block(3),
		protocol.MakeRecord(pfn, 0), protocol.MakeRecord(pfn+2, 1),
		protocol.MakeRecord(pfn+1, 0), protocol.MakeRecord(pfn+8, 3)))
	a := m.answer()
	total := uint64(0)
	for i, r := range a.ranges {
		total += r.Length
		if r.Length == 0 || r.GPA%4096 != 0 || r.Length%4096 != 0 ||
			i > 0 && a.ranges[i-1].GPA+a.ranges[i-1].Length >= r.GPA {
			s.Failf("the ranges are %x", a.ranges)
		}
	}
	want := []memRange{
		{pfn << 12, 4 << 12}, {(pfn + 8) << 12, 8 << 12},
		blockRange(3), {blockRange(8).GPA, 128 << 12},
	}
	if a.status != fpOK || a.bytes != total || !slices.Equal(a.ranges, want) {
		s.Failf("the request ended with status %v and %d bytes, not 0 and %x", a, a.bytes, want)
	}
}

func fpSilentDriver(s *session) {
	const short = 2 * time.Second
	m := s.bootDriver()
	for _, starts := range []bool{false, true} { // a driver that starts may be waited for longer
		took := m.unanswered(short, starts)
		if took >= short { // the time includes the wake-up of this test, which can be late
			s.Notef("a request with a deadline of %v was answered after %v", short, took)
			took = m.unanswered(short, starts)
		}
		if took >= short {
			s.Failf("a request with a deadline of %v was answered after %v", short, took)
		}
	}
	m.exchange()
}

// unanswered makes a request that the driver does not answer, but may start to. It returns
// how long the backend took to end the request.
func (m *freePageMachine) unanswered(limit time.Duration, starts bool) time.Duration {
	begun := time.Now()
	m.askFor(limit)
	e := m.await(protocol.EventReportFree)
	if e.DeadlineMS > uint32(limit.Milliseconds()) {
		m.Failf("the driver is given %d ms of %v", e.DeadlineMS, limit)
	}
	if starts {
		m.post(startedMessage(e.Generation))
	}
	m.expectStatus(fpTimeout, "the driver is silent")
	took := time.Since(begun)
	if c := m.await(protocol.EventCancel); c.Generation != e.Generation {
		m.Failf("REPORT_FREE %#x was followed by CANCEL of %#x", e.Generation, c.Generation)
	}
	return took
}

func fpSpurious(s *session) {
	m := s.bootDriver()
	m.signal()
	m.noEvent(protocol.EventReportFree)
	m.exchange()
	for range 3 {
		m.signal()
	}
	m.noEvent(protocol.EventReportFree)
	m.exchange()
}

func fpGivenUp(s *session) {
	m := s.bootDriver()
	m.ask()
	e := m.await(protocol.EventReportFree)
	m.post(startedMessage(e.Generation)) // or it might be taken for gone before
	m.cancel()
	if c := m.await(protocol.EventCancel); c.Generation != e.Generation {
		s.Failf("REPORT_FREE %#x was followed by CANCEL of %#x", e.Generation, c.Generation)
	}
	m.post(lastReport(e.Generation, block(0)))
	if le.Uint64(m.window[winDone:]) == m.asked && m.readAnswer().status == fpOK {
		s.Failf("a request that was given up was answered by success")
	}
	m.exchange()
}

func fpPublished(s *session) {
	m := s.bootDriver()
	m.exchange()
	before := slices.Clone(m.window[winDone:0x2000])
	m.post(lastReport(99, block(0)))
	m.post([]byte{1, 2, 3})
	m.post(helloMessage(protocol.StatusFailed, 0))
	time.Sleep(quiet)
	if !slices.Equal(before, m.window[winDone:0x2000]) {
		s.Failf("the window changed after the answer was published")
	}
}

func fpVersion2(s *session) {
	for _, features := range []uint64{0, 1, 1<<63 | 1} {
		m := s.boot(bootOptions{stopped: true, Options: windowOptions})
		m.need(m.f.Negotiated.Has(windowFeature), "backend does not offer the hint window")
		request := le.AppendUint64(le.AppendUint64(nil, 2), features)
		reply, err := m.f.Ask(windowRequest, request)
		m.must(err, "ask for the window")
		p := reply.Payload
		reply.Close()
		m.f.Close()
		switch {
		case len(p) == 16 && le.Uint32(p) == 1: // an older backend
		case len(p) == 24 && le.Uint32(p) == 2 && le.Uint64(p[16:])&^features == 0:
		default:
			s.Failf("a request of version 2 with the features %#x is answered by % x", features, p)
		}
	}
}
