// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/introspect"
	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

const (
	few   = 4 * syn.SectionPFN // pages of the guest
	clock = syn.Image + syn.Variables + 24
	start = 1 << 32 // the clock's first value
)

// counted counts the references to a guest's memory.
type counted struct {
	t testing.TB
	n chan int // holds the count
}

func newCounted(t testing.TB) *counted {
	c := &counted{t, make(chan int, 1)}
	c.n <- 0
	return c
}

func (c *counted) Retain() { c.n <- <-c.n + 1 }

func (c *counted) Release() {
	n := <-c.n - 1
	if n < 0 {
		c.t.Error("memory was released too often")
	}
	c.n <- n
}

// setting is an observer with a guest and a frontend. By default the frontend says
// that nothing was written.
type setting struct {
	t       testing.TB
	o       *Observer
	guest   *syn.Guest
	put     func(gpa int64, word uint64)
	shared  *counted
	free    *freeset.Set
	asked   int // peeks
	written func(frame uint64) bool
}

// newSetting makes a setting. change writes the guest's struct pages.
func newSetting(t testing.TB, change func(*syn.Guest)) *setting {
	t.Helper()
	s := &setting{t: t, o: New(Options{Background: true})}
	s.guest, s.shared = syn.New(t, few, few), newCounted(t)
	s.guest.Put(syn.Variables+24, start)
	change(s.guest)
	mem, put := s.guest.Share(t)
	s.put = put
	s.free = freeset.New([]freeset.Range{{GPA: syn.FirstPFN << 12, Length: few << 12}})
	s.written = func(uint64) bool { return false }
	s.o.setGuest(s.shared, mem)
	t.Cleanup(func() { s.o.setGuest(nil, nil) })
	return s
}

// live has the observer find the kernel, and then advances the guest's clock.
func (s *setting) live() {
	s.t.Helper()
	_, release, err := s.o.Kernel(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	release()
	s.put(clock, start+1)
}

// blocks makes free blocks of order 3. Each frame of struct pages has two of them.
func blocks(g *syn.Guest) {
	for n := uint64(0); n < 1024; n += 32 {
		g.Set(n, syn.Page{Word: syn.Buddy, Private: 3})
	}
}

func (s *setting) peek(_ context.Context, pages []freeset.Range) ([]byte, error) {
	s.asked++
	var bits []byte
	n := 0
	for _, r := range pages {
		for at := r.GPA; at < r.End(); at += 1 << 12 {
			if n%8 == 0 {
				bits = append(bits, 0)
			}
			if s.written(at >> 12) {
				bits[n/8] |= 1 << (n % 8)
			}
			n++
		}
	}
	return bits, nil
}

func (s *setting) ask() (*source.Findings, error) {
	s.free.Reset()
	f := &source.Findings{Free: s.free}
	return f, s.o.Ask(s.t.Context(), source.Request{Written: s.peek}, f)
}

// expect fails unless the request ends with that status.
func (s *setting) expect(want protocol.AnswerStatus) *source.Failure {
	s.t.Helper()
	_, err := s.ask()
	failure := new(source.Failure)
	if !errors.As(err, &failure) || failure.Status != want {
		s.t.Fatalf("got %v, want %v", err, want)
	}
	return failure
}

// found asks, and returns the free frames, counted from FirstPFN.
func (s *setting) found() []uint64 {
	s.t.Helper()
	if _, err := s.ask(); err != nil {
		s.t.Fatal(err)
	}
	var all []uint64
	for r := range s.free.Ranges(1) {
		for at := r.GPA; at < r.End(); at += 1 << 12 {
			all = append(all, at>>12-syn.FirstPFN)
		}
	}
	return all
}

// want returns the frames of the blocks that falls does not name.
func want(falls func(n uint64) bool) []uint64 {
	var all []uint64
	for n := uint64(0); n < 1024; n += 32 {
		for i := uint64(0); i < 8 && !falls(n); i++ {
			all = append(all, n+i)
		}
	}
	return all
}

func none(uint64) bool { return false }

func TestFreeBlocksAreFound(t *testing.T) {
	s := newSetting(t, blocks)
	s.live()
	if got := s.found(); !slices.Equal(got, want(none)) {
		t.Errorf("found %v", got)
	}
	f, err := s.ask()
	if err != nil || f.Items != 32 || s.asked != 2 {
		t.Errorf("%d items, %d peeks, %v", f.Items, s.asked, err)
	}
	for _, p := range f.Phases {
		if p.Time < 0 {
			t.Errorf("phase %s took %v", p.Name, p.Time)
		}
	}
}

func TestBlocksWithAWrittenStructPageAreNotReported(t *testing.T) {
	const perFrame = 4096 / syn.PageSize
	for _, max := range []int{maxClaims, 8, 3} { // one round, and several
		s := newSetting(t, blocks)
		s.live()
		s.o.maxClaims = max
		s.written = func(frame uint64) bool {
			return frame == syn.MemMap>>12+2 || frame == syn.MemMap>>12+15
		}
		got := s.found()
		if !slices.Equal(got, want(func(n uint64) bool { return n/perFrame == 2 || n/perFrame == 15 })) {
			t.Errorf("%d claims at once: found %v", max, got)
		}
		if (s.asked > 1) != (max < maxClaims) {
			t.Errorf("%d claims at once: %d peeks", max, s.asked)
		}
	}
}

// A reset leaves the dead kernel in memory, where it still passes all checks.
func TestAKernelThatWasNotSeenRunningIsNotUsed(t *testing.T) {
	for name, tc := range map[string]struct {
		after func(s *setting)
		ok    bool
	}{
		"its clock goes on":      {func(s *setting) { s.put(clock, start+5) }, true},
		"its clock stands still": {func(*setting) {}, false},
		"its clock is set back":  {func(s *setting) { s.put(clock, start-5) }, false},
		"its clock jumps":        {func(s *setting) { s.put(clock, start+1<<20) }, false},
		"a reset after it was seen": {func(s *setting) {
			s.put(clock, start+5)
			s.see()
			s.o.SetBoot(1)
		}, false},
		"a life after the reset": {func(s *setting) {
			s.o.SetBoot(1)
			s.see()
			s.put(clock, start+5)
		}, true},
		"memory described anew": {func(s *setting) {
			s.put(clock, start+5)
			s.see()
			s.o.setGuest(s.shared, s.o.guest.mem)
		}, true},
		"another guest": {func(s *setting) {
			s.put(clock, start+5)
			s.see()
			mem := s.o.guest.mem
			s.o.setGuest(nil, nil)
			s.o.setGuest(s.shared, mem)
		}, false},
		"the kernel restarts": {func(s *setting) {
			s.put(clock, start+5)
			s.see()
			s.put(syn.Image+syn.Variables+syn.State, syn.Running+3)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetting(t, blocks)
			s.see()
			tc.after(s)
			_, err := s.ask()
			if (err == nil) != tc.ok {
				t.Fatalf("got %v", err)
			}
			if got := s.o.Status(); (got.Why == "") != tc.ok || got.Release == "" {
				t.Errorf("status %+v", got)
			}
		})
	}
}

// see has the observer look for the kernel, and ignores the result.
func (s *setting) see() {
	if _, release, err := s.o.ruling(s.t.Context()); err == nil {
		release()
	}
}

func TestGuestThatChecksFreePagesIsRefusedByTheHost(t *testing.T) {
	for name, variable := range map[string]int{"page_poison": 48, "debug_pagealloc": 56} {
		s := newSetting(t, func(g *syn.Guest) {
			blocks(g)
			g.Put(syn.Variables+variable, 1)
		})
		s.live()
		if f := s.expect(protocol.AnswerRefused); !f.Final {
			t.Errorf("%s: another source may be asked", name)
		}
	}
}

func TestRequestsThatCannotBeAnswered(t *testing.T) {
	s := newSetting(t, blocks)
	s.live()
	f := &source.Findings{Free: s.free}
	failure := new(source.Failure)
	err := s.o.Ask(t.Context(), source.Request{}, f)
	if !errors.As(err, &failure) || failure.Status != protocol.AnswerNoDriver {
		t.Errorf("a QEMU that cannot peek: %v", err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	givenUp := func(ctx context.Context, _ []freeset.Range) ([]byte, error) {
		cancel(errors.New("given up"))
		return nil, context.Cause(ctx)
	}
	err = s.o.Ask(ctx, source.Request{Written: givenUp}, f)
	if !errors.As(err, &failure) || failure.Status != protocol.AnswerCancelled {
		t.Errorf("cancelled: %v", err)
	}

	short := func(context.Context, []freeset.Range) ([]byte, error) { return []byte{0}, nil }
	err = s.o.Ask(t.Context(), source.Request{Written: short}, f)
	if !errors.As(err, &failure) || failure.Status != protocol.AnswerRefused {
		t.Errorf("an answer that is too short: %v", err)
	}

	s.o.setGuest(nil, nil)
	s.expect(protocol.AnswerNoDriver)
	if _, _, err := s.o.Kernel(t.Context()); !errors.Is(err, ErrNoMemory) {
		t.Errorf("without memory: %v", err)
	}
}

func TestAGuestWithoutAKernelIsRefused(t *testing.T) {
	s := newSetting(t, func(g *syn.Guest) { clear(g.Low) })
	s.expect(protocol.AnswerRefused)
	if _, _, err := s.o.Kernel(t.Context()); !errors.Is(err, introspect.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if got := s.o.Status(); got.Release != "" || got.Why == "" {
		t.Errorf("status %+v", got)
	}
}

func TestMemoryIsReleased(t *testing.T) {
	s := newSetting(t, blocks)
	s.live()
	s.found()
	s.o.setGuest(nil, nil)
	for n := -1; n != 0; {
		n = <-s.shared.n
		s.shared.n <- n
	}
}
