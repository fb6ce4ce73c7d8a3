// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// askedArrival is a hand-over to a machine that brings a page a second by itself. The source's
// backend answers what the test says. The destination writes down what it brings.
type askedArrival struct{ *ordered }

// newAskedArrival makes both machines. The destination has memory of its own.
func newAskedArrival(
	t *testing.T, hostPage uint64, memory string, change ...func(*vm.Config),
) *askedArrival {
	t.Helper()
	pool, log := newPool(t), filepath.Join(t.TempDir(), "trace-")
	with := func(c *vm.Config, memory []string) {
		for _, change := range change {
			change(c)
		}
		c.Memory = memory
	}
	s := newSkippingTo(t, []string{"x-ignore-shared", "return-path"}, func(c *vm.Config) {
		with(c, onPool(pool, "", "on").Memory)
	}, func(c *vm.Config) {
		with(c, localFrom(pool, "", memory).Memory)
		c.Options = append(c.Options, "-trace", "fast_snapshot_load_chunk", "-D", log+"%d")
	})
	return &askedArrival{
		&ordered{skipping: s, trace: log + strconv.Itoa(s.dst.PID()), hostPage: hostPage},
	}
}

// connect begins the hand-over.
func (a *askedArrival) connect() {
	a.t.Helper()
	a.skipping.connect()
	a.dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": pageSize})
}

// isAsked waits for the question, and then writes a page that is about to be called free.
func (a *askedArrival) isAsked() *rawWindow {
	a.t.Helper()
	w := a.m.awaitAsked(a.here)
	a.m.fill(rewritten, pageSize, 0xa5)
	a.written = []uint64{rewritten}
	return w
}

// arrives waits until the destination runs, and until it knows what is a hole.
func (a *askedArrival) arrives() vm.Load {
	a.t.Helper()
	if err := a.dst.Arrive(a.dst.ctx); err != nil {
		a.t.Fatal(err)
	}
	a.dst.awaitHoles()
	return a.dst.requireLoading()
}

// requireSkipped checks that what is free does not arrive, but for the host page that was written.
func (a *askedArrival) requireSkipped(load vm.Load) {
	a.t.Helper()
	requireHint(a.t, a.m, "ok")
	if want := free.Length - a.hostPage; uint64(load.Skipped) != want {
		a.t.Errorf("%d bytes need not arrive, want %d", load.Skipped, want)
	}
	if got := a.dst.number("readq %#x", free.GPA); got != 0 {
		a.t.Errorf("a page that was free reads %#x", got)
	}
}

// chunk is a part of memory that arrived without having been waited for.
type chunk struct {
	freeset.Range
	first bool
}

// chunks returns what has arrived by itself, in its order.
func (a *askedArrival) chunks() (chunks []chunk) {
	a.t.Helper()
	text, err := os.ReadFile(a.trace)
	if err != nil {
		a.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var c chunk
		var first int
		_, rest, ok := strings.Cut(line, "fast_snapshot_load_chunk ram: ")
		if !ok {
			continue
		}
		if _, err := fmt.Sscanf(rest, "%v, %v bytes, first=%d", &c.GPA, &c.Length, &first); err != nil {
			a.t.Fatalf("%v in %q", err, line)
		}
		c.first = first == 1
		chunks = append(chunks, c)
	}
	return chunks
}

// requireWantedFirst checks that what is hot arrived before the rest, that all of it did, and that
// what is free did not.
func (a *askedArrival) requireWantedFirst() {
	a.t.Helper()
	var arrived, want uint64 // of what is hot
	chunks := a.chunks()
	for i, c := range chunks {
		if i > 0 && c.first && !chunks[i-1].first {
			a.t.Errorf("%+v is to be first, and comes after others", c)
		}
		for at := c.GPA; at < c.GPA+c.Length; at += a.hostPage {
			isHot := a.class(at) == classHot
			if isHot != c.first {
				a.t.Errorf("page %#x is hot: %v, and in %+v", at, isHot, c)
			}
			if isHot {
				arrived += a.hostPage
			}
			// There may be no hole of a huge page: it is filled.
			if a.hostPage == pageSize && a.class(at) == classFree && !slices.Contains(a.written, at) {
				a.t.Errorf("page %#x is free, and was brought", at)
			}
		}
	}
	for at := uint64(0); at < all; at += a.hostPage {
		if a.class(at) == classHot {
			want += a.hostPage
		}
	}
	if arrived != want {
		a.t.Errorf("%d bytes of what is hot came first, want %d", arrived, want)
	}
}

// What the guest has free does not arrive. What it will want first comes first, and no other
// memory with it. What was written after the guest was asked arrives all the same.
func TestArrivalOfWhatIsWanted(t *testing.T) {
	const huge = 2 << 20
	for _, tc := range []struct {
		name, memory string
		hostPage     uint64
		pages        int
	}{
		{name: "shared memory", memory: own, hostPage: pageSize},
		{name: "huge pages", memory: own + ",hugetlb=on,hugetlbsize=2M", hostPage: huge, pages: 32},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lab.ReserveHugePages(t, tc.pages)
			a := newAskedArrival(t, tc.hostPage, tc.memory)
			a.set("hybrid", true) // there is no postcopy here
			a.connect()
			w := a.isAsked()
			if flags := w.get32(protocol.WindowAskFlagsOffset); flags&protocol.WindowAskOrder == 0 {
				t.Errorf("an order is of use, and the question's flags are %#x", flags)
			}
			w.publishInOrder([]freeset.Range{free}, hot, cold)
			a.requireSkipped(a.arrives())
			if h, c := a.order(); h != bytesOf(hot) || c != bytesOf(cold) {
				t.Errorf("query-migrate says %d bytes first and %d last", h, c)
			}
			if figures, err := a.m.QueryMigrate(a.m.ctx); err != nil ||
				figures.Hints.Hybrid != "nothing-to-send" {
				t.Errorf("the hints are %+v, %v", figures.Hints, err)
			}
			a.dst.atFullSpeed()
			a.requireArrived()
			a.requireWantedFirst()
		})
	}
}

// A hand-over that is cancelled while the guest is asked leaves nothing behind: the next one asks
// again, and what was written in between arrives.
func TestArrivalAfterACancel(t *testing.T) {
	a := newAskedArrival(t, pageSize, own)
	a.connect()
	a.m.awaitAsked(a.here)
	if err := a.m.CancelMigration(a.m.ctx); err != nil {
		t.Fatal(err)
	}
	requireHint(t, a.m, "cancelled")
	a.m.requireRuns()
	a.dst.Close()
	a.there.window.Store(nil)
	a.m.fill(free.GPA, pageSize, 0xa5)
	a.dst = startIncoming(t, a.dst.Config)
	a.dst.awaitConnectedTo(a.there)

	a.connect()
	w := a.isAsked()
	rest := freeset.Range{GPA: free.GPA + pageSize, Length: free.Length - pageSize}
	w.publish(protocol.AnswerOK, rest)
	a.written = append(a.written, free.GPA)
	a.arrives()
	requireHint(t, a.m, "ok")
	a.dst.atFullSpeed()
	a.requireArrived()
}

// Where some RAM is sent, it is sent as a whole, and what is said of it is left out.
func TestArrivalBesideRAMThatIsSent(t *testing.T) {
	const content = 1 << 20
	a := newAskedArrival(t, pageSize, own, withModule("memory-backend-ram"))
	a.m.fill(module, content, 0x77)
	a.connect()
	sent := freeset.Range{GPA: module, Length: 2 * content}
	a.isAsked().publishInOrder([]freeset.Range{free, sent}, hot, cold)
	a.requireSkipped(a.arrives())
	if figures, err := a.m.QueryMigrate(a.m.ctx); err != nil ||
		uint64(figures.Hints.LeftOut) != sent.Length/pageSize {
		t.Errorf("the hints are %+v, %v", figures.Hints, err)
	}
	want := bytes.Repeat([]byte{0x77}, content)
	if got := a.dst.save(freeset.Range{GPA: module, Length: content}); !bytes.Equal(got, want) {
		t.Error("memory that was sent is another than was written")
	}
	a.dst.atFullSpeed()
	a.requireArrived()
	a.requireWantedFirst()
}

// A destination that does not say that its memory arrives has no use for an answer: nobody is
// asked. It may use the pool itself, or be a QEMU that does not know of this.
func TestNobodyIsAskedInVain(t *testing.T) {
	requireUnasked := func(t *testing.T, s *skipping) {
		t.Helper()
		if err := s.dst.Arrive(s.dst.ctx); err != nil {
			t.Fatal(err)
		}
		if asked := s.here.window.Load().get64(protocol.WindowAskGenerationOffset); asked != 0 {
			t.Errorf("the backend was asked, as number %d", asked)
		}
		requireHint(t, s.m, "nothing-to-send")
	}
	t.Run("the pool stays", func(t *testing.T) {
		pool := newPool(t)
		stays := func(c *vm.Config) { c.Memory = onPool(pool, "", "on").Memory }
		s := newSkippingTo(t, []string{"x-ignore-shared", "return-path"}, stays, stays)
		s.connect()
		requireUnasked(t, s)
	})
	t.Run("it returns the ping", func(t *testing.T) {
		a := newAskedArrival(t, pageSize, own)
		a.link.set(func(l *link) { l.there = [2]string{"arrv", "arrz"} })
		a.connect()
		requireUnasked(t, a.skipping)
		if load := a.dst.atFullSpeed(); load.Skipped != 0 {
			t.Errorf("%d bytes do not arrive that nobody has called free", load.Skipped)
		}
		a.requireArrived()
	})
}
