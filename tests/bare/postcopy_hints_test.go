// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// Memory with content, which the answer reports as free.
var (
	free = freeset.Range{GPA: filled + 8<<20, Length: 8 << 20}
	// rewritten is a page of free that is written after the answer. With huge pages
	// all pages around it are sent as well.
	rewritten = free.GPA + free.Length - pageSize
)

// Two pages that are not free, which the destination has to request. After a request
// the source continues sending from that page.
const (
	used     = filled + 24<<20
	usedMore = filled + 28<<20
)

// module is the address of the memory module, if there is one.
const module = 1 << 32

// In postcopy the destination knows which pages were skipped. It fills them with
// zeroes on access, by the guest or the backend, without a request to the source. A
// page that was written after the answer is sent.
func TestHintsWithPostcopy(t *testing.T) {
	for _, tc := range []struct {
		name         string
		change       func(c *vm.Config)
		hugePages    int
		module       bool // the tested memory is in a memory module
		capabilities []string
		running      func(s *skipping) // called when the destination runs, without most of its memory
	}{
		{name: "memfd"},
		{name: "a file", change: func(c *vm.Config) {
			c.Memory = []string{"memory-backend-file,id=ram,size=64M,share=on,mem-path=/dev/shm"}
		}},
		{name: "huge pages", hugePages: 64, change: func(c *vm.Config) {
			c.Memory = []string{"memory-backend-memfd,id=ram,size=64M,share=on,hugetlb=on,hugetlbsize=2M"}
		}},
		{name: "anonymous memory", module: true, change: withModule("memory-backend-ram")},
		{name: "a private memfd", module: true, change: withModule("memory-backend-memfd,share=off")},
		{name: "preempt", capabilities: []string{"postcopy-preempt"}},
		{name: "release-ram", capabilities: []string{"release-ram"}},
		{name: "xbzrle", capabilities: []string{"xbzrle"}},
		{name: "a backend that reads it", running: (*skipping).backendReads},
		{
			name:         "a backend that reads it, with preempt",
			capabilities: []string{"postcopy-preempt"},
			running:      (*skipping).backendReads,
		},
		{name: "huge pages that a backend reads", hugePages: 64, change: func(c *vm.Config) {
			c.Memory = []string{"memory-backend-memfd,id=ram,size=64M,share=on,hugetlb=on,hugetlbsize=2M"}
		}, running: (*skipping).backendReads},
		{name: "a network that fails", running: (*skipping).fails},
		{
			name:         "a network that fails, with preempt",
			capabilities: []string{"postcopy-preempt"},
			running:      (*skipping).fails,
		},
		{name: "a network that fails, with huge pages", hugePages: 64, change: func(c *vm.Config) {
			c.Memory = []string{"memory-backend-memfd,id=ram,size=64M,share=on,hugetlb=on,hugetlbsize=2M"}
		}, running: (*skipping).fails},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lab.ReserveHugePages(t, tc.hugePages)
			s := newSkipping(t, tc.module, tc.change, tc.capabilities)
			s.begin()
			s.answer()
			s.switchOver()
			s.dst.awaitSees(s.there, low)
			if tc.running != nil {
				tc.running(s)
			}
			s.requireUnasked(func() { s.requireZero(s.dst, 0, free.Length/2) })
			if got := s.dst.do("read %#x 1", s.at(rewritten)); got != "0xa5" {
				t.Errorf("a page that was written after the answer begins with %s, want 0xa5", got)
			}
			s.requireAsked()
			s.end()
			requireHint(t, s.m, "ok")
			s.requireArrived()
		})
	}
}

// A backend that serves its queues and QEMU's messages in one thread may wait for a page
// that was skipped when postcopy ends. QEMU does not wait for its answer in vain.
func TestBackendNeedsASkippedPageAtTheEndOfPostcopy(t *testing.T) {
	s := newSkipping(t, false, nil, nil)
	s.dst.Close()
	r := startRelay(t, s.there.socket, passAll)
	got, read, ended := page(0xff), make(chan error, 1), make(chan struct{})
	r.ending = func() {
		done := make(chan struct{})
		go func() {
			_, err := s.there.kept.Load().ReadAt(got, int64(free.GPA+1<<20))
			read <- err
			close(done)
		}()
		select {
		case <-done:
		case <-ended: // QEMU has waited in vain
		}
	}
	c := s.dst.Config
	c.Backend = r.socket
	s.there.window.Store(nil)
	s.dst = startIncoming(t, c)
	s.dst.awaitConnectedTo(s.there)
	s.begin()
	s.answer()
	s.switchOver()
	s.dst.awaitSees(s.there, low)
	s.end()
	close(ended)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	requireZeroes(t, got)
	if said := s.dst.countSaid(saysNone); said != 0 {
		t.Errorf("QEMU has given the backend up\n%s", s.dst.Messages())
	}
	s.requireArrived()
}

// Hints also work if postcopy is permitted, and precopy completes the migration.
func TestHintsWithPostcopyThatDoesNotCome(t *testing.T) {
	s := newSkipping(t, false, nil, nil)
	s.begin()
	s.answer()
	s.end()
	if err := s.dst.Arrive(s.dst.ctx); err != nil {
		t.Fatal(err)
	}
	requireHint(t, s.m, "ok")
	s.requireArrived()
}

// If the destination does not support skipped pages in postcopy, or does not confirm
// that in time, the migration completes without hints.
func TestHintsWithPostcopyToAnOlderQEMU(t *testing.T) {
	const ping, pong, other = "fbpq", "fbpr", "fbpz"
	for _, tc := range []struct {
		name        string
		there, back [2]string // see link
		timeout     int
	}{
		{"returns the ping", [2]string{ping, other}, [2]string{other, ping}, 60000},
		{"does not answer", [2]string{ping, other}, [2]string{}, 300},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSkipping(t, false, nil, nil)
			if err := s.m.SetDevice(s.m.ctx, "hint-timeout", tc.timeout); err != nil {
				t.Fatal(err)
			}
			s.link.set(func(l *link) { l.there, l.back = tc.there, tc.back })
			s.begin()
			s.m.await("there are no hints", func() bool {
				return hintStatus(t, s.m) != ""
			})
			requireHint(t, s.m, "incompatible")
			s.switchOver()
			s.end()
			s.requireWhole()
		})
	}
}

// A migration can be cancelled while QEMU waits for the destination's confirmation.
func TestCancelledBeforeTheDestinationSaysThatItKnows(t *testing.T) {
	s := newSkipping(t, false, nil, nil)
	if err := s.m.SetDevice(s.m.ctx, "hint-timeout", math.MaxUint32); err != nil {
		t.Fatal(err)
	}
	// The ping is garbled, so there is no pong.
	s.link.set(func(l *link) { l.there = [2]string{"fbpq", "fbpz"} })
	s.begin()
	if err := s.m.CancelMigration(s.m.ctx); err != nil {
		t.Fatal(err)
	}
	requireHint(t, s.m, "cancelled")
	s.m.requireRuns()
}

// answer reports memory as free, and then writes one page of it.
func (s *skipping) answer() {
	s.t.Helper()
	w := s.m.awaitAsked(s.here)
	w.publish(protocol.AnswerOK, freeset.Range{GPA: s.at(free.GPA), Length: free.Length})
	s.m.fill(s.at(rewritten), pageSize, 0xa5)
	s.m.await("the answer is used", func() bool { return hintStatus(s.t, s.m) != "" })
	requireHint(s.t, s.m, "ok")
}

// requireUnasked checks that the destination requests no page while do runs.
func (s *skipping) requireUnasked(do func()) {
	s.t.Helper()
	before := s.requests()
	do()
	if n := s.requests() - before; n != 0 {
		s.t.Errorf("%d requests where nothing had to be asked for", n)
	}
}

// requireAsked checks that the destination requests a page that was not skipped.
func (s *skipping) requireAsked() {
	s.t.Helper()
	before := s.requests()
	if got := s.dst.do("read %#x 1", s.at(used)); got != "0x5a" {
		s.t.Errorf("a page that is used begins with %s", got)
	}
	if s.requests() == before {
		s.t.Error("no request for a missing page is counted: requireUnasked would see none")
	}
}

func (s *skipping) requests() int64 {
	s.t.Helper()
	figures, err := s.m.QueryMigrate(s.m.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return figures.RAM.Requests
}

// requireZero checks that the guest reads zeroes in a part of free, by offsets.
func (s *skipping) requireZero(m *machine, from, to uint64) {
	s.t.Helper()
	const step = 1 << 20
	for at := from; at < to; at += step {
		text := strings.TrimPrefix(m.do("read %#x %#x", s.at(free.GPA)+at, step), "0x")
		got, err := hex.DecodeString(text)
		if err != nil {
			s.t.Fatal(err)
		}
		requireZeroes(s.t, got)
	}
}

func requireZeroes(t testing.TB, got []byte) {
	t.Helper()
	if i := bytes.IndexFunc(got, func(r rune) bool { return r != 0 }); i >= 0 {
		t.Errorf("skipped memory is %#x at %d", got[i], i)
	}
}

// backendReads has the destination's backend read memory that was skipped, and a page
// that was not.
func (s *skipping) backendReads() {
	s.t.Helper()
	memory := s.there.kept.Load()
	if memory == nil {
		s.t.Fatal("the backend has no memory")
	}
	read := make(chan error, 1)
	got := make([]byte, 2<<20)
	s.requireUnasked(func() {
		go func() {
			_, err := memory.ReadAt(got, int64(free.GPA+1<<20))
			read <- err
		}()
		s.dst.await("the backend has read", func() bool { return len(read) > 0 })
	})
	if err := <-read; err != nil {
		s.t.Fatal(err)
	}
	requireZeroes(s.t, got)
	// A page that was not skipped: the backend has to wait until it arrives.
	one := make([]byte, 1)
	go func() {
		_, err := memory.ReadAt(one, usedMore)
		read <- err
	}()
	s.dst.await("the backend has read what is used", func() bool { return len(read) > 0 })
	if err := <-read; err != nil || one[0] != 0x5a {
		s.t.Errorf("the backend reads %#x of a page that is used: %v", one, err)
	}
}

// fails has the network fail, and postcopy recover.
func (s *skipping) fails() {
	s.t.Helper()
	s.requireZero(s.dst, 0, 1<<20) // so that some pages are in place before
	s.failsOnce()
}

// failsOnce has the network fail, and postcopy recover. It may be called again.
func (s *skipping) failsOnce() {
	s.t.Helper()
	s.link.cut()
	s.awaitStatus(s.m, "postcopy-paused")
	s.awaitStatus(s.dst, "postcopy-paused")
	s.link.set(func(l *link) { l.far += "+" })
	s.dst.execute("migrate-recover", map[string]any{"uri": "unix:" + s.link.far})
	s.m.execute("migrate", map[string]any{"uri": "unix:" + s.link.near, "resume": true})
	s.awaitStatus(s.m, "postcopy-active")
}

// requireArrived checks every page of the tested memory at the destination.
func (s *skipping) requireArrived() {
	s.t.Helper()
	s.dst.requireRuns()
	got := s.dst.save(freeset.Range{GPA: s.at(filled), Length: filledSize})
	zero, content, later := page(0), page(0x5a), page(0xa5)
	skipped := 0
	for at := uint64(0); at < filledSize; at += pageSize {
		addr, want := filled+at, content
		isFree := addr >= free.GPA && addr-free.GPA < free.Length
		if addr == rewritten {
			want = later
		}
		switch p := got[at:][:pageSize]; {
		case bytes.Equal(p, want): // with huge pages also those around rewritten
		case isFree && addr != rewritten && bytes.Equal(p, zero):
			skipped++
		default:
			s.t.Fatalf("page %#x is lost: it begins with % x", addr, p[:8])
		}
	}
	if least := int(free.Length/pageSize) - 512; skipped < least {
		s.t.Errorf("%d pages were skipped, want %d at least", skipped, least)
	}
}

func page(b byte) []byte { return bytes.Repeat([]byte{b}, pageSize) }

func hintStatus(t testing.TB, m *machine) string {
	t.Helper()
	figures, err := m.QueryMigrate(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return figures.HintStatus()
}

func requireHint(t testing.TB, m *machine, want string) {
	t.Helper()
	if got := hintStatus(t, m); got != want {
		t.Errorf("the hints ended with %q, want %q", got, want)
	}
}
