// SPDX-License-Identifier: Apache-2.0

package pagerun_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun/pageruntest"
)

var errFake = errors.New("no good")

// runLimit is how long a run may take, as the package says in its errors.
const runLimit = 5 * time.Second

// span is what a run of these tests is about: it takes three runs.
var span = pagerun.Span{Start: 1, End: 10001}

func newFake() (*pagerun.Runner, *pageruntest.Program) {
	return pageruntest.New(pagerun.Head, span)
}

// all runs the program over the whole span.
func all(ctx context.Context, r *pagerun.Runner) (w pagerun.Work, err error) {
	err = r.Exclusive(ctx, func() error {
		for s := span; s.Start < s.End; {
			if err := r.Step(ctx, &s, &w); err != nil {
				return err
			}
		}
		return nil
	})
	return w, err
}

// once tries the program.
func once(ctx context.Context, r *pagerun.Runner) error {
	return r.Try(ctx, func(ctx context.Context, s pagerun.Span) error {
		return r.Step(ctx, &s, new(pagerun.Work))
	})
}

func TestPagesArePassedInShortRuns(t *testing.T) {
	r, p := newFake()
	var passed uint64
	p.Visit = func(first, n uint64) {
		if first != passed+1 || n > pagerun.MaxPages {
			t.Errorf("%d pages from %d on, after %d", n, first, passed)
		}
		passed += n
	}
	if w, err := all(t.Context(), r); err != nil || w.Runs != 3 || passed != 10000 {
		t.Errorf("%d pages in %d runs: %v", passed, w.Runs, err)
	}
}

func TestProgramThatBreaksItsContract(t *testing.T) {
	const next = 0
	for name, c := range map[string]struct {
		result func(r *pagerun.Runner) (uint32, error)
		want   error
	}{
		"it fails": {func(*pagerun.Runner) (uint32, error) { return 0, errFake }, errFake},
		"it knows no such kernel": {
			func(*pagerun.Runner) (uint32, error) { return 1, nil }, pagerun.ErrKernel,
		},
		"it has another result": {
			func(*pagerun.Runner) (uint32, error) { return 2, nil }, pagerun.ErrContract,
		},
		"it stays where it is": {func(r *pagerun.Runner) (uint32, error) {
			r.Put(next, 1)
			return 0, nil
		}, pagerun.ErrContract},
		"it hardly goes on": {func(r *pagerun.Runner) (uint32, error) {
			r.Put(next, pagerun.MinPages)
			return 0, nil
		}, pagerun.ErrContract},
	} {
		t.Run(name, func(t *testing.T) {
			r, p := newFake()
			p.Result = func(int) (uint32, error) { return c.result(r) }
			if w, err := all(t.Context(), r); !errors.Is(err, c.want) || w.Runs != 0 {
				t.Errorf("got %+v, %v, want %v", w, err, c.want)
			}
			if err := once(t.Context(), r); !errors.Is(err, c.want) || p.Closed != 1 {
				t.Errorf("in its trial: got %v, want %v; closed %d times", err, c.want, p.Closed)
			}
		})
	}
}

// Work ends between two runs, and its memory is not freed before.
func TestWorkIsEnded(t *testing.T) {
	r, p := newFake()
	ctx, cancel := context.WithCancelCause(t.Context())
	p.Result = func(run int) (uint32, error) {
		if _, err := all(ctx, r); !errors.Is(err, pagerun.ErrBusy) {
			t.Errorf("two at once: %v", err)
		}
		if run == 2 {
			cancel(errFake)
		}
		return 0, nil
	}
	if _, err := all(ctx, r); !errors.Is(err, errFake) || p.Runs != 2 {
		t.Fatalf("%v after %d runs", err, p.Runs)
	}
	p.Result = func(int) (uint32, error) {
		if err := r.Close(); err != nil || p.Closed != 0 {
			t.Errorf("closed in a run: %v", err)
		}
		if _, err := all(t.Context(), r); !errors.Is(err, pagerun.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		return 0, errFake
	}
	if _, err := all(t.Context(), r); !errors.Is(err, errFake) || p.Closed != 1 {
		t.Errorf("%v, closed %d times", err, p.Closed)
	}
	if err := r.Close(); err != nil || p.Closed != 1 {
		t.Errorf("%v, closed %d times", err, p.Closed)
	}
}

// A program that does not end keeps neither its caller nor that of another program: but no other
// program runs beside it, or each would take a processor.
func TestProgramThatDoesNotEnd(t *testing.T) {
	for name, run := range map[string]func(context.Context, *pagerun.Runner) error{
		"in its trial": once,
		"at work": func(ctx context.Context, r *pagerun.Runner) error {
			_, err := all(ctx, r)
			return errors.Join(err, r.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				turn := pagerun.NewTurn()
				r, p := pageruntest.NewIn(turn, pagerun.Head, span)
				ended := make(chan struct{})
				p.Result = func(int) (uint32, error) { <-ended; return 0, nil }
				begun := time.Now()
				err := run(t.Context(), r)
				if !errors.Is(err, pagerun.ErrEndless) || time.Since(begun) != runLimit {
					t.Errorf("%v after %v", err, time.Since(begun))
				}
				if p.Closed != 0 {
					t.Error("closed in a run")
				}
				other, q := pageruntest.NewIn(turn, pagerun.Head, span)
				if _, err := all(t.Context(), other); !errors.Is(err, pagerun.ErrStuck) || q.Runs != 0 {
					t.Errorf("another program: %v, %d runs", err, q.Runs)
				}
				close(ended)
				synctest.Wait()
				if p.Closed != 1 {
					t.Errorf("closed %d times", p.Closed)
				}
				if err := once(t.Context(), other); err != nil {
					t.Errorf("another program, after that: %v", err)
				}
			})
		})
	}
}

// Work that is stopped ends at once, also in a run that does not end. Then nothing else begins.
func TestWorkIsStoppedInARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := newFake()
		ended := make(chan struct{})
		p.Result = func(run int) (uint32, error) {
			if run == 1 {
				<-ended
			}
			return 0, nil
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errFake) })
		begun := time.Now()
		if _, err := all(ctx, r); !errors.Is(err, errFake) || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		// The next one waits for that run.
		time.AfterFunc(time.Second, func() { close(ended) })
		if _, err := all(t.Context(), r); err != nil || time.Since(begun) != 2*time.Second {
			t.Errorf("after that run: %v after %v", err, time.Since(begun))
		}
		ended = make(chan struct{})
		p.Runs = 0
		if _, err := all(t.Context(), r); !errors.Is(err, pagerun.ErrEndless) {
			t.Errorf("%v", err)
		}
		if _, err := all(t.Context(), r); !errors.Is(err, pagerun.ErrStuck) {
			t.Errorf("meanwhile: %v", err)
		}
		close(ended)
	})
}
