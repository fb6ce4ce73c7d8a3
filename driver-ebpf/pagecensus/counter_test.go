// SPDX-License-Identifier: Apache-2.0

package pagecensus

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

var errFake = errors.New("no good")

// fakeProgram counts all pages as free, but for what its hook does after that.
type fakeProgram struct {
	c      *Counter
	runs   int
	hook   func(run int) (uint32, error)
	closed int
}

func (p *fakeProgram) run() (uint32, error) {
	p.runs++
	c := p.c
	n := min(c.u64(atMost), c.u64(atEnd)-c.u64(atNext))
	const free = atCounts + protocol.CensusCounts*8
	c.put(free, c.u64(free)+n)
	c.put(atNext, c.u64(atNext)+n)
	if p.hook != nil {
		return p.hook(p.runs)
	}
	return 0, nil
}

func (p *fakeProgram) Close() error { p.closed++; return nil }

// newFake returns a counter of 10000 pages in two spans, and its program.
func newFake() (*Counter, *fakeProgram) {
	c := &Counter{
		mem: make([]byte, mapSize), free: func() error { return nil }, turn: NewTurn(),
		spans: func() ([]span, error) { return []span{{1, 6001}, {9000, 13000}}, nil },
	}
	p := &fakeProgram{c: c}
	c.prog = p
	return c, p
}

func TestCountIsDoneInShortRuns(t *testing.T) {
	c, p := newFake()
	for range 2 { // the second finds nothing of the first
		p.runs = 0
		r, err := c.Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Counts[1][protocol.CensusPages] != 10000 || r.Runs != 3 || p.runs != 3 {
			t.Errorf("%+v in %d runs", r, p.runs)
		}
	}
}

// A program that does not keep its contract is no census, and never one that the device would
// take for malformed.
func TestProgramThatCountsWrongly(t *testing.T) {
	const free = atCounts + protocol.CensusCounts*8
	for name, c := range map[string]struct {
		hook func(c *Counter) (uint32, error)
		want error
	}{
		"it fails":                {func(*Counter) (uint32, error) { return 0, errFake }, errFake},
		"it knows no such kernel": {func(*Counter) (uint32, error) { return 1, nil }, ErrKernel},
		"it has another result":   {func(*Counter) (uint32, error) { return 2, nil }, ErrContract},
		"it stays where it is": {func(c *Counter) (uint32, error) {
			c.put(atNext, 1)
			return 0, nil
		}, ErrContract},
		"it hardly goes on": {func(c *Counter) (uint32, error) {
			c.put(atNext, minPages)
			return 0, nil
		}, ErrContract},
		"it counts nothing": {func(c *Counter) (uint32, error) {
			c.put(free, 0)
			return 0, nil
		}, ErrContract},
		"it counts too much": {func(c *Counter) (uint32, error) {
			c.put(free, 10001)
			return 0, nil
		}, ErrContract},
		"a part is more than all": {func(c *Counter) (uint32, error) {
			c.put(free+8, c.u64(free)+1)
			return 0, nil
		}, ErrContract},
		"a sum that wraps": {func(c *Counter) (uint32, error) {
			c.put(atCounts, ^uint64(0))
			return 0, nil
		}, ErrContract},
	} {
		t.Run(name, func(t *testing.T) {
			counter, p := newFake()
			p.hook = func(int) (uint32, error) { return c.hook(counter) }
			r, err := counter.Count(t.Context())
			if !errors.Is(err, c.want) || r.Runs != 0 {
				t.Errorf("got %+v, %v, want %v", r, err, c.want)
			}
			if err := counter.try(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("in its trial: got %v, want %v", err, c.want)
			}
		})
	}
}

// A census ends between two runs, and its memory is not freed before.
func TestCountIsEnded(t *testing.T) {
	c, p := newFake()
	ctx, cancel := context.WithCancelCause(t.Context())
	p.hook = func(run int) (uint32, error) {
		if _, err := c.Count(ctx); !errors.Is(err, ErrBusy) {
			t.Errorf("two counts at once: %v", err)
		}
		if run == 2 {
			cancel(errFake)
		}
		return 0, nil
	}
	if _, err := c.Count(ctx); !errors.Is(err, errFake) || p.runs != 2 {
		t.Fatalf("%v after %d runs", err, p.runs)
	}
	p.hook = func(run int) (uint32, error) {
		if err := c.Close(); err != nil || p.closed != 0 {
			t.Errorf("closed in a run: %v", err)
		}
		if _, err := c.Count(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		return 0, errFake
	}
	if _, err := c.Count(t.Context()); !errors.Is(err, errFake) || p.closed != 1 {
		t.Errorf("%v, closed %d times", err, p.closed)
	}
	if err := c.Close(); err != nil || p.closed != 1 {
		t.Errorf("%v, closed %d times", err, p.closed)
	}
}

// A program that does not end keeps neither its caller nor that of another program: but no other
// program runs beside it, or each would take a processor.
func TestProgramThatDoesNotEnd(t *testing.T) {
	for name, run := range map[string]func(context.Context, *Counter) error{
		"in its trial": func(ctx context.Context, c *Counter) error { return c.try(ctx) },
		"in a count": func(ctx context.Context, c *Counter) error {
			_, err := c.Count(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := newFake()
				ended := make(chan struct{})
				p.hook = func(int) (uint32, error) { <-ended; return 0, nil }
				begun := time.Now()
				if err := run(t.Context(), c); !errors.Is(err, ErrEndless) || time.Since(begun) != runLimit {
					t.Errorf("%v after %v", err, time.Since(begun))
				}
				if _, err := c.Count(t.Context()); !errors.Is(err, ErrStuck) {
					t.Errorf("meanwhile: %v", err)
				}
				if err := c.Close(); err != nil || p.closed != 0 {
					t.Errorf("closed in a run: %v", err)
				}
				other, q := newFake()
				other.turn = c.turn
				if err := other.try(t.Context()); !errors.Is(err, ErrStuck) || q.runs != 0 {
					t.Errorf("another program: %v, %d runs", err, q.runs)
				}
				close(ended)
				synctest.Wait()
				if p.closed != 1 {
					t.Errorf("closed %d times", p.closed)
				}
				if err := other.try(t.Context()); err != nil {
					t.Errorf("another program, after that: %v", err)
				}
			})
		})
	}
}

// A count that is stopped ends at once, also in a run that does not end.
func TestCountIsStoppedInARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := newFake()
		ended := make(chan struct{})
		p.hook = func(run int) (uint32, error) {
			if run == 1 {
				<-ended
			}
			return 0, nil
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errFake) })
		begun := time.Now()
		if _, err := c.Count(ctx); !errors.Is(err, errFake) || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		// The next one waits for that run.
		time.AfterFunc(time.Second, func() { close(ended) })
		if _, err := c.Count(t.Context()); err != nil || time.Since(begun) != 2*time.Second {
			t.Errorf("after that run: %v after %v", err, time.Since(begun))
		}
	})
}
