// SPDX-License-Identifier: Apache-2.0

package pagecensus

import (
	"errors"
	"testing"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun/pageruntest"
)

// free is where the count of free pages is.
const free = atCounts + protocol.CensusCounts*8

// newFake returns a counter of 10000 pages in two spans, whose program counts all pages as free,
// but for what hook does after that.
func newFake(hook func(c *Counter)) (*Counter, *pageruntest.Program) {
	r, p := pageruntest.New(mapSize, pagerun.Span{Start: 1, End: 6001},
		pagerun.Span{Start: 9000, End: 13000})
	c := &Counter{r}
	p.Visit = func(_, n uint64) {
		c.Put(free, c.Word(free)+n)
		if hook != nil {
			hook(c)
		}
	}
	return c, p
}

func TestCountIsDoneInShortRuns(t *testing.T) {
	c, p := newFake(nil)
	for range 2 { // the second finds nothing of the first
		p.Runs = 0
		r, err := c.Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Counts[1][protocol.CensusPages] != 10000 || r.Runs != 3 || p.Runs != 3 {
			t.Errorf("%+v in %d runs", r, p.Runs)
		}
	}
}

// A program that does not keep its contract is no census, and never one that the device would
// take for malformed.
func TestProgramThatCountsWrongly(t *testing.T) {
	for name, hook := range map[string]func(c *Counter){
		"it counts nothing":       func(c *Counter) { c.Put(free, 0) },
		"it counts too much":      func(c *Counter) { c.Put(free, 10001) },
		"a part is more than all": func(c *Counter) { c.Put(free+8, c.Word(free)+1) },
		"a sum that wraps":        func(c *Counter) { c.Put(atCounts, ^uint64(0)) },
	} {
		t.Run(name, func(t *testing.T) {
			c, p := newFake(hook)
			r, err := c.Count(t.Context())
			if !errors.Is(err, pagerun.ErrContract) || r.Runs != 0 {
				t.Errorf("got %+v, %v", r, err)
			}
			if err := c.Try(t.Context(), c.tryOnce); !errors.Is(err, pagerun.ErrContract) || p.Closed != 1 {
				t.Errorf("in its trial: got %v, closed %d times", err, p.Closed)
			}
		})
	}
}
