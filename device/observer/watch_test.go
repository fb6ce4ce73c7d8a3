// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"testing"
	"testing/synctest"
	"time"

	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
)

// afterLook is a reference to memory that calls look after each look for a kernel.
type afterLook struct {
	reference
	look func()
}

func (a afterLook) Release() {
	a.reference.Release()
	a.look()
}

// A watcher that has found a kernel waits for keepTime. If the guest was reset
// during that look, it must look again soon instead.
func TestAResetDuringALookIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetting(t, blocks)
		reset := func() { s.o.SetBoot(1) }
		s.o.setGuest(afterLook{s.shared, reset}, s.o.guest.mem)
		time.Sleep(settleTime + lifePoll/2) // it waits for a sign of life now
		s.put(clock, start+1)
		time.Sleep(lifePoll)
		synctest.Wait()
		if got := s.o.Status(); got.Release != "" {
			t.Fatalf("there was no reset: %+v", got)
		}
		time.Sleep(settleTime + 2*lifePatience)
		synctest.Wait()
		if got := s.o.Status(); got.Release == "" {
			t.Errorf("the watcher did not look again after the reset: %+v", got)
		}
	})
}

func TestStatusTellsWhatLedToTheKernel(t *testing.T) {
	for note, want := range map[uint64]string{
		0: "search", syn.Note: "vmcoreinfo", syn.Note + 4096: "search", 1 << 50: "search",
	} {
		s := newSetting(t, blocks)
		s.o.SetNote(note)
		s.live()
		if got := s.o.Status().FoundBy; got != want {
			t.Errorf("told %#x, found by %q, want %q", note, got, want)
		}
	}
}

func TestChangedIsCalledForEachNewStatus(t *testing.T) {
	s := newSetting(t, blocks)
	told := 0
	o := New(Options{Changed: func() { told++ }})
	look := func() {
		if _, release, err := o.Kernel(t.Context()); err == nil {
			release()
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		news int
	}{
		{"memory", func() { o.setGuest(s.shared, s.o.guest.mem) }, 1},
		{"a kernel", look, 1},
		{"the same one", look, 0},
		{"a reset", func() { o.SetBoot(1) }, 1},
		{"the same one", func() { o.SetBoot(1) }, 0},
		{"another, with no kernel known", func() { o.SetBoot(2) }, 0},
		{"no memory", func() { o.setGuest(nil, nil) }, 1},
	} {
		told = 0
		step.do()
		if told != step.news {
			t.Errorf("%s: Changed was called %d times, want %d", step.name, told, step.news)
		}
	}
}
