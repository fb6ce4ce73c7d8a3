// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/introspect"
	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
	"github.com/fbpp-project/fbpp/device/source"
)

// hotAndCold makes free blocks as blocks does, and 4 hot and 8 cold pages.
func hotAndCold(g *syn.Guest) {
	blocks(g)
	for n := uint64(0); n < 8; n++ {
		g.Set(2000+n, syn.Page{
			Mapping: 0xffff888012345600, Flags: syn.LRU | syn.Uptodate, Refcount: 1,
		})
	}
	for n := uint64(0); n < 4; n++ {
		g.Set(3000+n, syn.Page{Word: syn.Slab})
	}
}

func newOrder(cold bool) *source.Order {
	memory := []freeset.Range{{GPA: syn.FirstPFN << 12, Length: few << 12}}
	o := &source.Order{Hot: freeset.New(memory)}
	if cold {
		o.Cold = freeset.New(memory)
	}
	return o
}

// expectOrder fails unless the order has the pages of hotAndCold.
func expectOrder(t *testing.T, o *source.Order) {
	t.Helper()
	at := func(n, count uint64) []freeset.Range {
		return []freeset.Range{{GPA: (syn.FirstPFN + n) << 12, Length: count << 12}}
	}
	if got := slices.Collect(o.Hot.Ranges(1)); !slices.Equal(got, at(3000, 4)) {
		t.Errorf("hot: %v", got)
	}
	if o.Cold == nil {
		return
	}
	if got := slices.Collect(o.Cold.Ranges(1)); !slices.Equal(got, at(2000, 8)) {
		t.Errorf("cold: %v", got)
	}
}

func TestAnOrderIsFoundWithTheFreeBlocks(t *testing.T) {
	s := newSetting(t, hotAndCold)
	s.live()
	for _, cold := range []bool{false, true} {
		s.free.Reset()
		f := &source.Findings{Free: s.free, Order: newOrder(cold)}
		if err := s.o.Ask(t.Context(), source.Request{Written: s.peek}, f); err != nil {
			t.Fatal(err)
		}
		if f.Order.From != "introspect" || f.Free.Frames() != 32*8 {
			t.Errorf("%d free frames, and an order from %q", f.Free.Frames(), f.Order.From)
		}
		expectOrder(t, f.Order)
	}
}

// Nothing relies on an order. So it needs no peek, and no sign of life.
func TestAnOrderAloneIsFoundOnceTheKernelIsKnown(t *testing.T) {
	s := newSetting(t, hotAndCold)
	err := s.o.FindOrder(t.Context(), source.Request{}, newOrder(true))
	if !errors.Is(err, errNotLooked) {
		t.Fatalf("before the kernel is known: %v", err)
	}
	if _, release, err := s.o.Kernel(t.Context()); err != nil {
		t.Fatal(err)
	} else {
		release()
	}
	o := newOrder(true)
	if err := s.o.FindOrder(t.Context(), source.Request{}, o); err != nil {
		t.Fatal(err)
	}
	expectOrder(t, o)
	if s.asked != 0 || o.From != "introspect" {
		t.Errorf("%d peeks, and an order from %q", s.asked, o.From)
	}
	// A search that goes on elsewhere is not waited for.
	s.o.turn <- struct{}{}
	if err := s.o.FindOrder(t.Context(), source.Request{}, newOrder(true)); err != nil {
		t.Error(err)
	}
	<-s.o.turn
	// Another boot has begun, and its kernel was not found yet.
	s.put(syn.Trampoline+8*511, 0)
	err = s.o.FindOrder(t.Context(), source.Request{}, newOrder(true))
	if !errors.Is(err, introspect.ErrUnproven) {
		t.Errorf("after a reset: %v", err)
	}
	s.o.SetBoot(1)
	if err := s.o.FindOrder(t.Context(), source.Request{}, newOrder(true)); !errors.Is(
		err, errNotLooked) {
		t.Errorf("after a reset that the frontend told of: %v", err)
	}
}

func TestAnObserverCanBeToldToKeepLooking(t *testing.T) {
	s := newSetting(t, hotAndCold)
	s.o = New(Options{})
	mem, _ := s.guest.Share(t)
	s.o.setGuest(s.shared, mem)
	t.Cleanup(func() { s.o.setGuest(nil, nil) })
	held := func() int {
		n := <-s.shared.n
		s.shared.n <- n
		return n
	}
	before := held()
	s.o.KeepLooking()
	s.o.KeepLooking()
	if n := held(); n != before+1 {
		t.Errorf("%d watchers were started", n-before)
	}
}

// A guest for which the time does not suffice has its free memory skipped, in no order.
func TestFreeBlocksGoBeforeAnOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for size, want := range map[uint64]bool{8 << 30: true, 32 << 30: true, 1 << 40: false} {
			if got := hasTimeForOrder(ctx, size, 2); got != want {
				t.Errorf("a guest of %d GiB has time for an order: %v", size>>30, got)
			}
		}
		if !hasTimeForOrder(t.Context(), 1<<50, 1) {
			t.Error("there is no time where there is no end of it")
		}
	})
}
