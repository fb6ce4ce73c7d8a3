// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// askedArrival is a hand-over to a machine that brings a page a second by itself, and writes down
// what it brings, and whether that is to be first.
type askedArrival struct {
	*skipping
	trace string
}

// chunk is a part of memory that arrived without having been waited for.
type chunk struct {
	freeset.Range
	first bool
}

// newAskedArrival makes both machines. The backend of the source answers what the test says.
func newAskedArrival(t *testing.T, memory string) *askedArrival {
	t.Helper()
	pool, log := newPool(t), filepath.Join(t.TempDir(), "trace-")
	capabilities := []string{"x-ignore-shared", "return-path"}
	s := newSkippingTo(t, capabilities, func(c *vm.Config) {
		c.Memory = onPool(pool, "first", "on").Memory
	}, func(c *vm.Config) {
		c.Memory = localFrom(pool, "second", memory).Memory
		c.Options = append(c.Options, "-trace", "fast_snapshot_load_chunk", "-D", log+"%d")
	})
	a := &askedArrival{skipping: s, trace: log + strconv.Itoa(s.dst.PID())}
	a.begin()
	a.dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": pageSize})
	return a
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
			a := newAskedArrival(t, tc.memory)
			w := a.m.awaitAsked(a.here)
			a.m.fill(rewritten, pageSize, 0xa5) // after the guest has looked
			w.publishInOrder([]freeset.Range{free}, hot, cold)
			if err := a.dst.Arrive(a.dst.ctx); err != nil {
				t.Fatal(err)
			}
			requireHint(t, a.m, "ok")
			a.dst.awaitHoles()
			if skipped := uint64(a.dst.requireLoading().Skipped); tc.hostPage == pageSize &&
				skipped != free.Length-pageSize {
				t.Errorf("%d bytes need not arrive, want %d", skipped, free.Length-pageSize)
			}
			if got := a.dst.number("readq %#x", free.GPA); got != 0 {
				t.Errorf("a page that was free reads %#x", got)
			}
			a.dst.atFullSpeed()

			o := &ordered{skipping: a.skipping, hostPage: tc.hostPage, written: []uint64{rewritten}}
			o.requireArrived()
			requireWantedFirst(t, o, a.chunks())
		})
	}
}

// requireWantedFirst checks that what is hot arrived before the rest, that all of it did, and that
// what is free did not.
func requireWantedFirst(t *testing.T, o *ordered, chunks []chunk) {
	t.Helper()
	var arrived uint64 // of what is hot
	for i, c := range chunks {
		if i > 0 && c.first && !chunks[i-1].first {
			t.Errorf("%v is to be first, and comes after others", c)
		}
		for at := c.GPA; at < c.GPA+c.Length; at += o.hostPage {
			isHot := o.class(at) == classHot
			if isHot != c.first {
				t.Errorf("page %#x is hot: %v, and in %+v", at, isHot, c)
			}
			if isHot {
				arrived += o.hostPage
			}
			if o.hostPage == pageSize && o.class(at) == classFree && !slices.Contains(o.written, at) {
				t.Errorf("page %#x is free, and was brought", at)
			}
		}
	}
	var want uint64
	for at := uint64(0); at < all; at += o.hostPage {
		if o.class(at) == classHot {
			want += o.hostPage
		}
	}
	if arrived != want {
		t.Errorf("%d bytes of what is hot came first, want %d", arrived, want)
	}
}

// A destination that uses the pool itself has no use for an answer: nobody is asked.
func TestNobodyIsAskedForAPoolThatStays(t *testing.T) {
	pool := newPool(t)
	stays := func(name string) func(c *vm.Config) {
		return func(c *vm.Config) { c.Memory = onPool(pool, name, "on").Memory }
	}
	s := newSkippingTo(t, []string{"x-ignore-shared", "return-path"}, stays("first"), stays("second"))
	s.begin()
	if err := s.dst.Arrive(s.dst.ctx); err != nil {
		t.Fatal(err)
	}
	requireHint(t, s.m, "nothing-to-send")
}
