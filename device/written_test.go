// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/device/window/windowtest"
)

const needsOrders = protocol.WindowFeatureOutcome | protocol.WindowFeaturePeek |
	protocol.WindowFeatureClasses | protocol.WindowFeatureNeeds

// watch boots a machine whose written memory is hot.
func watch(t *testing.T, o device.Options) *machine {
	o.Hot = device.HotWritten
	if o.HotTime == 0 {
		o.HotTime = 10 * time.Millisecond
	}
	m := mustBoot(t, o)
	m.fetchWindowWith(needsOrders)
	return m
}

// reports has the driver report the frames from 512 to 1024 as free.
func (m *machine) reports() {
	m.t.Helper()
	e := m.expectEvent(protocol.EventReportFree)
	m.post(last(e.Generation, protocol.MakeRecord(512, 9)))
}

// answerPeeks has QEMU say that the frames 500 to 520 and 1090 were written. The machine's memory
// begins with frame 256.
func (m *machine) answerPeeks() {
	m.t.Helper()
	_, pages := m.window.AwaitPeek(patience)
	if len(pages) != 1 || pages[0] != frames(256, 4096) {
		m.t.Fatalf("a peek at %v, not at all memory", pages)
	}
	words := make([]uint64, 4096/64)
	for _, f := range []uint64{
		500, 501, 502, 503, 504, 505, 506, 507, 508, 509, 510, 511, 512, 513, 514, 515, 516, 517, 518,
		519, 1090,
	} {
		words[(f-256)/64] |= 1 << ((f - 256) % 64)
	}
	m.window.AnswerPeek(0, words...)
}

func TestWhatIsWrittenIsHot(t *testing.T) {
	m := watch(t, device.Options{Order: ordering{find: around}, Cache: device.CacheLast})
	m.hello(protocol.StatusOK, 0)
	for range 2 { // nothing is left of the request before
		m.window.AskFor(true, patience)
		m.reports()
		m.answerPeeks()
		want := windowtest.Answer{
			Bytes: 512 << 12, Ranges: block512(),
			Hot:  []freeset.Range{frames(500, 12), frames(1090, 1)},
			Cold: []freeset.Range{frames(1024, 16), frames(1102, 4)},
		}
		if diff := cmp.Diff(want, m.window.Answer(patience)); diff != "" {
			t.Error(diff)
		}
		if x := m.dev.Status().Last; x.Source != "driver" || x.OrderSource != "written" {
			t.Errorf("%+v", x)
		}
	}
}

// What is written is hot in a guest of which nobody knows anything, too.
func TestWhatIsWrittenNeedsNobodyInTheGuest(t *testing.T) {
	m := watch(t, device.Options{})
	m.window.AskFor(true, patience)
	m.answerPeeks()
	want := windowtest.Answer{
		Truncated: true, Hot: []freeset.Range{frames(500, 20), frames(1090, 1)},
	}
	if diff := cmp.Diff(want, m.window.Answer(patience)); diff != "" {
		t.Error(diff)
	}
	if m.window.Source() != "written" {
		t.Errorf("the source is %q", m.window.Source())
	}

	// But a driver that lies is an error, as ever.
	m.hello(protocol.StatusOK, 0)
	m.window.AskFor(true, patience)
	g := m.expectEvent(protocol.EventReportFree).Generation
	m.post(last(g, protocol.MakeRecord(512, 9), protocol.MakeRecord(512, 9)))
	m.expect(protocol.AnswerBadReport)
}

// Where nobody knows what is free, the failure is the answer if there is no order either, or if
// somebody should know of it.
func TestAnOrderHidesNoFailure(t *testing.T) {
	m := watch(t, device.Options{})
	m.window.AskFor(true, patience)
	m.window.AwaitPeek(patience)
	m.window.AnswerPeek(0, make([]uint64, 4096/64)...)
	m.expect(protocol.AnswerNoDriver)

	m = watch(t, device.Options{More: []source.Source{fixed{
		func(context.Context, source.Request, *source.Findings) error { return errors.New("a fault") },
	}}})
	m.window.AskFor(true, patience)
	if a := m.window.Answer(patience); a.Status == protocol.AnswerOK || len(a.Hot) > 0 {
		t.Errorf("the answer is %+v", a)
	}
}

// Free memory does not depend on what is written, or on whether that can be seen.
func TestNobodyLooksForWhatIsWritten(t *testing.T) {
	free := windowtest.Answer{Bytes: 512 << 12, Ranges: block512()}
	for name, ask := range map[string]func(m *machine){
		"an order is of no use": func(m *machine) { m.window.AskFor(false, patience); m.reports() },
		"there is no time": func(m *machine) { // of 585 ms, without what is kept for the way back
			m.window.AskFor(true, 650*time.Millisecond)
			m.reports()
		},
		"QEMU cannot tell": func(m *machine) {
			m.fetchWindowWith(needsOrders &^ protocol.WindowFeaturePeek)
			m.window.AskFor(true, patience)
			m.reports()
		},
		"QEMU does not tell": func(m *machine) {
			m.window.AskFor(true, patience)
			m.reports()
			m.window.AwaitPeek(patience)
			m.window.AnswerPeek(2)
		},
		"QEMU tells late": func(m *machine) {
			asked := time.Now()
			m.window.AskFor(true, 3*time.Second)
			m.reports()
			m.window.AwaitPeek(patience)
			time.Sleep(time.Until(asked.Add(2720 * time.Millisecond))) // a tenth is kept for the way back
			m.window.AnswerPeek(0, ^uint64(0))
		},
	} {
		m := watch(t, device.Options{})
		m.hello(protocol.StatusOK, 0)
		ask(m)
		if diff := cmp.Diff(free, m.window.Answer(patience)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		peeks := m.window.Word64(protocol.WindowPeekNumberOffset)
		if peeks > 0 && !strings.HasPrefix(name, "QEMU") {
			t.Errorf("%s: QEMU was asked", name)
		}
	}
}

// A guest that is paused writes nothing. It is not waited for, also where the frontend cannot say
// that an order is of no use.
func TestAPausedGuestIsNotWatched(t *testing.T) {
	m := watch(t, device.Options{HotTime: time.Hour, More: []source.Source{fixed{found}}})
	m.fetchWindowWith(needsOrders &^ protocol.WindowFeatureNeeds)
	m.window.AskPaused(patience)
	if a := m.window.Answer(patience); a.Status != protocol.AnswerOK || len(a.Ranges) != 1 {
		t.Errorf("the answer is %+v", a)
	}
	if n := m.window.Word64(protocol.WindowPeekNumberOffset); n > 0 {
		t.Errorf("%d peeks", n)
	}
}

// Cold memory is in the order all the same.
func TestColdMemoryDoesNotDependOnWhatIsWritten(t *testing.T) {
	m := watch(t, device.Options{Order: ordering{find: around}, Cache: device.CacheLast})
	m.hello(protocol.StatusOK, 0)
	m.window.AskFor(true, patience)
	m.reports()
	m.window.AwaitPeek(patience)
	m.window.AnswerPeek(1)
	want := windowtest.Answer{
		Bytes: 512 << 12, Ranges: block512(),
		Cold: []freeset.Range{frames(503, 1), frames(1024, 16), frames(1102, 4)},
	}
	if diff := cmp.Diff(want, m.window.Answer(patience)); diff != "" {
		t.Error(diff)
	}
}

// A request that ends soon shortens the time in which the guest is watched, also where a search
// for cold memory takes all of it.
func TestWatchingEndsBeforeTheRequest(t *testing.T) {
	search := func(ctx context.Context, _ *source.Order) error { <-ctx.Done(); return ctx.Err() }
	m := watch(t, device.Options{
		HotTime: time.Hour, Cache: device.CacheLast, Order: ordering{find: search},
	})
	m.hello(protocol.StatusOK, 0)
	m.window.AskFor(true, 3*time.Second)
	m.reports()
	m.answerPeeks()
	if a := m.window.Answer(patience); len(a.Hot) != 2 || len(a.Ranges) != 1 {
		t.Errorf("the answer is %+v", a)
	}
}

// With the kernel's word a sample is not used, and with a sample the kernel is not asked.
func TestWhoSaysWhatIsHot(t *testing.T) {
	for policy, want := range map[device.HotPolicy]struct{ without, with string }{
		device.HotAuto:   {"ordering", "sampler"},
		device.HotKernel: {"ordering", "ordering"},
		device.HotSample: {"", "sampler"},
	} {
		m := bootSampler(t, device.Options{Hot: policy, Order: ordering{find: around}})
		for _, want := range []string{want.without, want.with} {
			a := m.driverAnswers()
			x := m.dev.Status().Last
			if x.OrderSource != want || (len(a.Hot) > 0) != (want != "") {
				t.Errorf("%v: the order is by %q, not %q: %v", policy, x.OrderSource, want, a.Hot)
			}
			if got := m.dev.Status().Kernel != nil; got != (policy == device.HotKernel) {
				t.Errorf("%v: somebody looks for the kernel: %v", policy, got)
			}
			if x.Status == "ok" && m.dev.Status().WorkingSet == nil {
				m.mustSample()
			}
		}
	}
}
