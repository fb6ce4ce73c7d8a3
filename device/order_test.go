// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/device/window/windowtest"
)

// ordering is a source that knows an order.
type ordering struct {
	fixed
	find func(ctx context.Context, o *source.Order) error
}

func (ordering) Name() string { return "ordering" }

func (s ordering) FindOrder(ctx context.Context, _ source.Request, o *source.Order) error {
	return s.find(ctx, o)
}

// around says that frames around the free block [512, 1024) are hot and cold, with
// overlaps and holes.
func around(_ context.Context, o *source.Order) error {
	o.From = "ordering"
	_, _, err := o.Hot.Add([]freeset.Block{
		{First: 500, Count: 2}, {First: 505, Count: 10}, // a small hole, and free frames
		{First: 1100, Count: 4}, {First: 1200, Count: 4}, // a large hole
	}, true)
	if err != nil || o.Cold == nil {
		return err
	}
	_, _, err = o.Cold.Add([]freeset.Block{
		{First: 503, Count: 1}, {First: 1000, Count: 40}, {First: 1102, Count: 4},
	}, true)
	return err
}

func frames(first, count uint64) freeset.Range {
	return freeset.Range{GPA: first << 12, Length: count << 12}
}

// aroundFree is what the window has of around, with a cold list only if last.
func aroundFree(last bool) windowtest.Answer {
	a := windowtest.Answer{
		Bytes: 512 << 12, Ranges: block512(),
		Hot: []freeset.Range{frames(500, 12), frames(1100, 4), frames(1200, 4)},
	}
	if last {
		a.Cold = []freeset.Range{frames(1024, 16), frames(1104, 2)}
	}
	return a
}

// driverAnswers makes a request that the driver answers, and returns the answer.
func (m *machine) driverAnswers() windowtest.Answer {
	m.t.Helper()
	m.request(patience)
	e := m.expectEvent(protocol.EventReportFree)
	m.post(last(e.Generation, protocol.MakeRecord(512, 9)))
	return m.window.Answer(patience)
}

func TestAnOrderComesWithTheDriversReport(t *testing.T) {
	for _, cache := range []device.CachePolicy{device.CacheSend, device.CacheLast} {
		m := mustBoot(t, device.Options{Cache: cache, Order: ordering{find: around}})
		m.hello(protocol.StatusOK, 0)
		if diff := cmp.Diff(aroundFree(cache == device.CacheLast), m.driverAnswers()); diff != "" {
			t.Errorf("%v: %s", cache, diff)
		}
		x := m.dev.Status().Last
		if x.Source != "driver" || x.OrderSource != "ordering" || x.HotBytes != 20<<12 {
			t.Errorf("%v: %+v", cache, x)
		}
		if _, ok := m.window.Entries()["order"]; !ok {
			t.Errorf("%v: no phase order: %v", cache, m.window.Entries())
		}
	}
}

// An order is never as important as the free ranges.
func TestFreeMemoryIsReportedWithoutAnOrder(t *testing.T) {
	free := windowtest.Answer{Bytes: 512 << 12, Ranges: block512()}
	for name, find := range map[string]func(context.Context, *source.Order) error{
		"late": func(ctx context.Context, o *source.Order) error {
			_ = around(ctx, o)
			<-ctx.Done()
			return ctx.Err()
		},
		"failed": func(ctx context.Context, o *source.Order) error {
			_ = around(ctx, o)
			return errors.New("no luck")
		},
	} {
		m := mustBoot(t, device.Options{Order: ordering{find: find}})
		m.hello(protocol.StatusOK, 0)
		for range 2 {
			if diff := cmp.Diff(free, m.driverAnswers()); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			if x := m.dev.Status().Last; x.OrderSource != "" || x.HotBytes != 0 {
				t.Errorf("%s: %+v", name, x)
			}
		}
	}
}

func TestAFrontendThatTakesNoOrderGetsNone(t *testing.T) {
	m := mustBoot(t, device.Options{Cache: device.CacheLast, Order: ordering{
		find: func(context.Context, *source.Order) error {
			t.Error("an order was looked for")
			return nil
		},
	}})
	m.fetchWindowWith(protocol.WindowFeatureOutcome)
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()
	if m.dev.Status().Ordered {
		t.Error("the frontend is said to take an order")
	}
}

// An order is looked for where the migration can use it, or where the operator wants
// cold memory to go last. A frontend that cannot tell counts as one that can use it.
func TestAnOrderIsLookedForWhereItIsOfUse(t *testing.T) {
	const classes = protocol.WindowFeatureClasses
	const needs = classes | protocol.WindowFeatureNeeds
	for _, tc := range []struct {
		name     string
		features uint64
		order    bool
		cache    device.CachePolicy
		want     bool
	}{
		{"precopy", needs, false, device.CacheSend, false},
		{"precopy with the cache last", needs, false, device.CacheLast, true},
		{"postcopy", needs, true, device.CacheSend, true},
		{"an older frontend", classes, false, device.CacheSend, true},
	} {
		var looked atomic.Int32
		find := func(ctx context.Context, o *source.Order) error {
			looked.Add(1)
			return around(ctx, o)
		}
		m := mustBoot(t, device.Options{Cache: tc.cache, Order: ordering{find: find}})
		m.fetchWindowWith(tc.features)
		m.hello(protocol.StatusOK, 0)
		m.window.AskFor(tc.order, patience)
		e := m.expectEvent(protocol.EventReportFree)
		m.post(last(e.Generation, protocol.MakeRecord(512, 9)))
		answer := m.window.Answer(patience)
		if got := looked.Load() == 1; got != tc.want || (len(answer.Hot) > 0) != tc.want {
			t.Errorf("%s: looked %d times, %d hot ranges", tc.name, looked.Load(), len(answer.Hot))
		}
		if _, ok := m.window.Entries()["order"]; ok != tc.want {
			t.Errorf("%s: phases %v", tc.name, m.window.Entries())
		}
	}
}

func TestAnAnswerThatIsNotOKHasNoOrder(t *testing.T) {
	m := mustBoot(t, device.Options{Order: ordering{find: around}})
	m.hello(protocol.StatusOK, 0)
	m.driverAnswers()
	m.request(patience)
	g := m.expectEvent(protocol.EventReportFree).Generation
	m.post(last(g, protocol.MakeRecord(512, 9), protocol.MakeRecord(512, 9)))
	want := windowtest.Answer{Status: protocol.AnswerBadReport}
	if diff := cmp.Diff(want, m.window.Answer(patience)); diff != "" {
		t.Error(diff)
	}
}

// A source that knows an order finds it in the look that it has for free memory.
func TestASourceThatKnowsAnOrderIsAskedOnce(t *testing.T) {
	var asked atomic.Int32
	both := ordering{fixed{func(ctx context.Context, r source.Request, f *source.Findings) error {
		asked.Add(1)
		if err := around(ctx, f.Order); err != nil {
			return err
		}
		return found(ctx, r, f)
	}}, func(ctx context.Context, o *source.Order) error {
		if err := around(ctx, o); err != nil {
			return err
		}
		<-ctx.Done() // the driver's order, which nobody needs when the driver fails
		return ctx.Err()
	}}
	m := mustBoot(t, device.Options{
		More: []source.Source{both}, Order: both, Cache: device.CacheLast,
	})
	m.hello(protocol.StatusLockdown, 0)
	m.request(patience)
	if diff := cmp.Diff(aroundFree(true), m.window.Answer(patience)); diff != "" || asked.Load() != 1 {
		t.Errorf("asked %d times: %s", asked.Load(), diff)
	}
}

func TestTheCachePolicyIsSwitched(t *testing.T) {
	m := mustBoot(t, device.Options{Order: ordering{find: around}})
	m.hello(protocol.StatusOK, 0)
	for _, tc := range []struct {
		word string
		last bool
		err  bool
	}{
		{"", false, false}, {"last", true, false}, {"lost", true, true}, {"drop", false, false},
		{"lost", false, true}, {"send", false, false},
	} {
		before := m.dev.Status().Cache
		if tc.word != "" {
			changed := m.dev.Changed()
			err := m.dev.SetCache(tc.word)
			if (err != nil) != tc.err {
				t.Errorf("%s: %v", tc.word, err)
			}
			want := device.CachePolicy(tc.word)
			if tc.err {
				want = before
			} else {
				select {
				case <-changed:
				case <-time.After(patience):
					t.Errorf("%s: nobody was told of the change", tc.word)
				}
			}
			s := m.dev.Status()
			if s.Cache != want {
				t.Errorf("%s: the status says %v", tc.word, s.Cache)
			}
			// Without a kernel there is no order. So the status says why there is none.
			if got := s.Kernel != nil; got != (want == device.CacheLast) {
				t.Errorf("%s: the status speaks of the kernel: %v", tc.word, got)
			}
		}
		if diff := cmp.Diff(aroundFree(tc.last), m.driverAnswers()); diff != "" {
			t.Errorf("%s: %s", tc.word, diff)
		}
	}
}
