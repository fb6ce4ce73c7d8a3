// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// makeHybrid asks for a hybrid migration.
func (o *ordered) makeHybrid() {
	o.t.Helper()
	o.set("hybrid", true)
}

// set sets a property of the source's device.
func (o *ordered) set(property string, value any) {
	o.t.Helper()
	if err := o.m.SetDevice(o.m.ctx, property, value); err != nil {
		o.t.Fatal(err)
	}
}

// hybrid returns what query-migrate says of the hybrid migration, or "".
func (o *ordered) hybrid() string {
	o.t.Helper()
	figures, err := o.m.QueryMigrate(o.m.ctx)
	if err != nil {
		o.t.Fatal(err)
	}
	if figures.Hints == nil {
		return ""
	}
	return figures.Hints.Hybrid
}

func (o *ordered) requireHybrid(want string) {
	o.t.Helper()
	if got := o.hybrid(); got != want {
		o.t.Errorf("the hybrid migration is %q, want %q", got, want)
	}
}

// switches waits until QEMU has switched to postcopy by itself.
func (o *ordered) switches() {
	o.t.Helper()
	o.awaitStatus(o.m, "postcopy-active")
	if err := o.dst.Arrive(o.dst.ctx); err != nil {
		o.t.Fatal(err)
	}
	o.m.await("it is known", func() bool { return o.hybrid() != "hot" })
	o.requireHybrid("switched")
}

// When what is hot has been sent, QEMU switches to postcopy by itself. The rest follows
// in order, and nothing is lost.
func TestHybrid(t *testing.T) {
	const huge = 2 << 20
	for _, tc := range []struct {
		name         string
		hostPage     uint64
		capabilities []string
		first        func(o *ordered) // called while what is hot is sent
		running      func(o *ordered) // called when the destination runs
		outOfOrder   bool             // as there are requests
	}{
		{name: "plain"},
		{name: "huge pages", hostPage: huge},
		{name: "preempt", capabilities: []string{"postcopy-preempt"}},
		{name: "release-ram", capabilities: []string{"release-ram"}},
		{name: "xbzrle", capabilities: []string{"xbzrle"}},
		{name: "what is written", first: (*ordered).writeEach},
		{name: "what is written, with huge pages", hostPage: huge, first: (*ordered).writeEach},
		{name: "what is written, with preempt", capabilities: []string{"postcopy-preempt"},
			first: (*ordered).writeEach},
		{name: "requests", running: (*ordered).readSome, outOfOrder: true},
		{name: "requests with huge pages", hostPage: huge, running: (*ordered).readSome,
			outOfOrder: true},
		{name: "requests with preempt", capabilities: []string{"postcopy-preempt"},
			running: (*ordered).readSome, outOfOrder: true},
		{name: "a network that fails", first: (*ordered).writeEach, running: (*ordered).recover,
			outOfOrder: true},
		{name: "a network that fails, with huge pages", hostPage: huge,
			running: (*ordered).recover, outOfOrder: true},
		{name: "a network that fails, with preempt", capabilities: []string{"postcopy-preempt"},
			running: (*ordered).recover, outOfOrder: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrdered(t, max(tc.hostPage, pageSize), tc.capabilities...)
			o.makeHybrid()
			o.begin()
			o.gently(func() {
				o.answer(hot, cold)
				if tc.first != nil {
					tc.first(o)
				}
			})
			o.switches()
			if tc.running != nil {
				tc.running(o)
			}
			o.end()
			o.requireHybrid("switched")
			if !tc.outOfOrder {
				o.requireInOrder()
			}
			o.requireArrived()
		})
	}
}

// readSome has the destination ask for a page of each class.
func (o *ordered) readSome() {
	o.t.Helper()
	o.requireUnasked(func() { o.requireZero(o.dst, 0, 1<<20) })
	before := o.requests()
	for _, at := range []uint64{cold[0].GPA + 3<<20, common, filled + 31<<20} {
		if got := o.dst.do("read %#x 1", at); got != "0x5a" {
			o.t.Errorf("page %#x begins with %s", at, got)
		}
	}
	if o.requests() == before {
		o.t.Error("nothing was asked for")
	}
}

// recover has the network fail between requests.
func (o *ordered) recover() {
	o.t.Helper()
	o.readSome()
	o.fails()
	if got := o.dst.do("read %#x 1", filled+20<<20); got != "0x5a" {
		o.t.Errorf("after the recovery a page begins with %s", got)
	}
}

// If there is nothing to go by, or it takes too long, the migration is an ordinary one,
// and says why.
func TestHybridThatIsNone(t *testing.T) {
	const large = 6 << 20 // takes seconds at the bandwidth that the tests begin with
	much := []freeset.Range{{GPA: used, Length: large}}
	for _, tc := range []struct {
		name   string
		want   string
		before func(o *ordered)
		answer func(o *ordered)
		after  func(o *ordered) // called when the status is there
	}{
		{name: "off", before: func(o *ordered) { o.set("hybrid", false) }},
		{name: "nothing is hot", want: "no-order", answer: func(o *ordered) { o.answer(nil, cold) }},
		{name: "an order that is not sound", want: "no-order", answer: func(o *ordered) {
			o.answer([]freeset.Range{hot[1], hot[0]}, cold)
		}},
		{name: "an answer without ranges", want: "no-order", answer: func(o *ordered) {
			o.m.awaitAsked(o.here).publish(protocol.AnswerRefused)
		}},
		{name: "hints are off", want: "no-order", before: func(o *ordered) { o.set("hints", false) },
			answer: func(*ordered) {}},
		{name: "without postcopy", want: "no-postcopy", before: func(o *ordered) {
			o.capabilities = []string{"multifd"}
		}},
		{name: "too slow", want: "too-slow", before: func(o *ordered) { o.set("hybrid-max-time", 200) },
			answer: func(o *ordered) { o.answer(much, nil) }},
		{name: "too slow, and postcopy by hand", want: "too-slow",
			before: func(o *ordered) { o.set("hybrid-max-time", 200) },
			answer: func(o *ordered) { o.answer(much, nil) },
			after:  func(o *ordered) { o.switchOver() }},
		{name: "all fits into the downtime", want: "not-needed", answer: func(o *ordered) {
			o.m.execute("migrate-set-parameters", map[string]any{
				"avail-switchover-bandwidth": 1 << 40,
			})
			o.answer(much, nil)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrdered(t, pageSize)
			o.makeHybrid()
			if tc.before != nil {
				tc.before(o)
			}
			o.begin()
			if tc.answer == nil {
				o.answer(hot, cold)
			} else {
				tc.answer(o)
			}
			o.m.await("it is decided", func() bool {
				return hintStatus(t, o.m) != "" && o.hybrid() != "hot"
			})
			o.requireHybrid(tc.want)
			if tc.after != nil {
				tc.after(o)
			}
			o.end()
			o.requireHybrid(tc.want)
			o.requireArrived()
		})
	}
}

// Cancelled, or without a network, while what is hot is sent, the guest goes on at the
// source. The next migration is a new one.
func TestHybridThatEndsEarly(t *testing.T) {
	much := []freeset.Range{{GPA: used, Length: 6 << 20}}
	for _, tc := range []struct {
		name   string
		status string
		end    func(o *ordered)
	}{
		{"cancelled", "cancelled", func(o *ordered) {
			if err := o.m.CancelMigration(o.m.ctx); err != nil {
				o.t.Fatal(err)
			}
		}},
		{"a network that fails", "failed", func(o *ordered) { o.link.cut() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrdered(t, pageSize)
			o.makeHybrid()
			o.begin()
			o.answer(much, cold)
			o.requireHybrid("hot")
			tc.end(o)
			o.awaitStatus(o.m, tc.status)
			o.m.await("the guest goes on", func() bool {
				status, err := o.m.Status(o.m.ctx)
				return err == nil && status == "running"
			})
			o.again()
			o.begin()
			o.answer(hot, cold)
			o.switches()
			o.end()
			o.requireArrived()
		})
	}
}

// again makes a new destination, as the first one is lost with its migration.
func (o *ordered) again() {
	o.t.Helper()
	o.dst.Close()
	o.there.window.Store(nil)
	c := o.dst.Config
	o.dst = startIncoming(o.t, c)
	o.dst.awaitConnectedTo(o.there)
	o.link.set(func(l *link) { l.far += "-again" })
}

// What is hot, has been sent, and was written then is sent once more before the switch.
// So the destination has it, and does not ask for it.
func TestHybridSendsOnceMoreWhatWasWritten(t *testing.T) {
	const size, rewritten = 1536 << 10, 256 << 10
	o := newOrdered(t, pageSize)
	o.makeHybrid()
	o.begin()
	o.answer([]freeset.Range{{GPA: used, Length: size}}, cold)
	o.m.await("more than that is sent", func() bool {
		return slices.Contains(o.sent(), used+2*rewritten)
	})
	o.m.fill(used, rewritten, 0xa5)
	for at := uint64(used); at < used+rewritten; at += pageSize {
		o.written = append(o.written, at)
	}
	o.switches()
	o.requireUnasked(func() {
		for _, at := range o.written {
			if got := o.dst.do("read %#x 1", at); got != "0xa5" {
				t.Fatalf("page %#x begins with %s", at, got)
			}
		}
	})
	o.end()
	o.requireArrived()
}

// A guest that goes through its memory at the destination asks for each page. With an
// order the pages around it come, too, and few have to be asked for. From 10.2 on QEMU
// sends what is behind a page by itself, out of order, but not what is before one.
func TestNeighboursOfARequest(t *testing.T) {
	const walked, pages = filled + 25<<20, 256
	for _, tc := range []struct {
		name  string
		alone bool               // without an order few have to be asked for, too
		at    func(i int) uint64 // the page that is read next
	}{
		{"up", parts.IsAtLeast(10, 2), func(i int) uint64 { return walked + uint64(i)*pageSize }},
		{"down", false, func(i int) uint64 { return walked + uint64(pages-1-i)*pageSize }},
		{"up and down at once", false, func(i int) uint64 {
			if i%2 == 0 {
				return walked + uint64(i/2)*pageSize
			}
			return walked + uint64(pages-1-i/2)*pageSize
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var requests [2]int64
			for i, order := range []bool{false, true} {
				o := newOrdered(t, pageSize, "postcopy-preempt")
				o.begin()
				o.m.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": slowly})
				if order {
					o.answer(hot, cold)
				} else {
					o.answer(nil, nil)
				}
				o.switchOver()
				before, sent := o.requests(), o.bytesSent()
				for n := range pages {
					if got := o.dst.do("read %#x 1", tc.at(n)); got != "0x5a" {
						t.Fatalf("page %#x begins with %s", tc.at(n), got)
					}
					sent += 2 * pageSize // the guest needs some time for each page
					o.m.await("the source has sent more", func() bool { return o.bytesSent() >= sent })
				}
				requests[i] = o.requests() - before
				o.end()
				o.requireArrived()
			}
			t.Logf("%d pages are read: %d requests, %d with an order", pages, requests[0], requests[1])
			each := requests[0]
			if tc.alone {
				// The first page, and one of each 8 that follow.
				if each = pages; requests[0] > 1+pages/8 {
					t.Errorf("%d requests for %d pages: QEMU sends what is behind none",
						requests[0], pages)
				}
			}
			if each < pages/2 || requests[1] > each/8 {
				t.Errorf("%d requests for %d pages, and %d with neighbours",
					requests[0], pages, requests[1])
			}
		})
	}
}

// bytesSent returns how much the source has sent.
func (o *ordered) bytesSent() int64 {
	o.t.Helper()
	figures, err := o.m.QueryMigrate(o.m.ctx)
	if err != nil {
		o.t.Fatal(err)
	}
	return figures.RAM.Transferred
}
