// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// The first pass sends what is hot, then what is in no list, then what is cold. So
// does postcopy with what is left. What is written meanwhile arrives, of each class.
func TestOrder(t *testing.T) {
	const huge = 2 << 20
	for _, tc := range []struct {
		name         string
		hostPage     uint64
		capabilities []string
		write        bool // in the first pass
		postcopy     bool // switch in the first pass
		running      func(o *ordered)
	}{
		{name: "precopy"},
		{name: "huge pages", hostPage: huge},
		{name: "xbzrle", capabilities: []string{"xbzrle"}},
		{name: "what is written", write: true},
		{name: "what is written, with huge pages", hostPage: huge, write: true},
		{name: "what is written, with xbzrle", capabilities: []string{"xbzrle"}, write: true},
		{name: "postcopy", postcopy: true},
		{name: "postcopy with huge pages", hostPage: huge, postcopy: true},
		{name: "preempt", capabilities: []string{"postcopy-preempt"}, postcopy: true},
		{name: "release-ram", capabilities: []string{"release-ram"}, postcopy: true},
		{name: "postcopy of what is written", write: true, postcopy: true},
		{name: "postcopy of what is written, with huge pages", hostPage: huge, write: true,
			postcopy: true},
		{name: "a network that fails", postcopy: true, running: func(o *ordered) { o.fails() }},
		{name: "a network that fails, with huge pages", hostPage: huge, postcopy: true,
			running: func(o *ordered) { o.fails() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrdered(t, max(tc.hostPage, pageSize), tc.capabilities...)
			o.begin()
			o.answer(hot, cold)
			if h, c := o.order(); h != bytesOf(hot) || c != bytesOf(cold) {
				t.Errorf("query-migrate says %d bytes first and %d last", h, c)
			}
			if tc.write {
				o.write()
			}
			if tc.postcopy {
				o.switchOver()
			}
			if tc.running != nil {
				tc.running(o)
			}
			o.end()
			o.requireInOrder()
			o.requireArrived()
		})
	}
}

// A page that is requested is sent at once, and then what is around it. The rest goes on
// in order, whether the request was for a page before or behind those that are being sent.
func TestOrderAfterARequest(t *testing.T) {
	const window = 64 << 10 // the first around a request
	for _, tc := range []struct {
		name   string
		wanted uint64
		hybrid bool
	}{
		{"before", cold[0].GPA + 1<<20, false},
		{"behind", common, false},
		{"before, hybrid", cold[0].GPA + 1<<20, true},
		{"behind, hybrid", common, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrdered(t, pageSize)
			o.set("hybrid", tc.hybrid)
			o.begin()
			o.answer(hot, cold)
			if tc.hybrid {
				o.switches()
			} else {
				o.switchOver()
			}
			if got := o.dst.do("read %#x 1", tc.wanted); got != "0x5a" {
				t.Errorf("a page that is requested begins with %s", got)
			}
			o.end()
			sent := o.sent()
			if i := slices.Index(sent, tc.wanted); i < 0 || i > len(sent)/2 {
				t.Fatalf("the requested page was sent as number %d of %d", i, len(sent))
			}
			rest := slices.DeleteFunc(slices.Clone(sent), func(at uint64) bool {
				return at&^(window-1) == tc.wanted&^(window-1)
			})
			if !o.isInOrder(rest) || o.class(rest[len(rest)-1]) != classCold {
				t.Error("after the request pages are sent out of order")
			}
			if !slices.IsSorted(slices.DeleteFunc(rest, func(at uint64) bool {
				return o.class(at) != classCommon
			})) {
				t.Error("the search has not gone on where it was")
			}
			o.requireArrived()
		})
	}
}

// With multifd several channels send pages at the same time. All of a class has arrived
// before the next one begins.
func TestOrderWithMultifd(t *testing.T) {
	o := newOrdered(t, pageSize)
	// The channels send what they have at once. So all may be sent before this test writes, which
	// has to be before the end.
	o.capabilities = []string{"multifd", "pause-before-switchover"}
	o.begin()
	o.answer(hot, cold)
	all := freeset.Range{GPA: filled, Length: filledSize}
	counts := func() (n [classFree + 1]int) {
		for at, content := uint64(0), o.dst.save(all); at < filledSize; at += pageSize {
			if bytes.Equal(content[at:][:pageSize], page(0x5a)) {
				n[o.class(filled+at)]++
			}
		}
		return n
	}
	var total [classFree + 1]int
	for at := uint64(0); at < filledSize; at += pageSize {
		total[o.class(filled+at)]++
	}
	for before, looks := counts(), 0; looks < 3; {
		now := counts() // later: what came before an earlier page is there
		if before[classCommon] > 0 && now[classHot] < total[classHot] {
			t.Fatalf("%v pages of each class, then %v: hot ones have been overtaken", before, now)
		}
		if before[classCold] > 0 && now[classCommon] < total[classCommon] {
			t.Fatalf("%v pages of each class, then %v: cold ones come too early", before, now)
		}
		if before[classCommon] > 0 {
			looks++
		}
		before = now
	}
	o.writeEach()
	o.m.execute("migrate-set-parameters", map[string]any{"max-bandwidth": 1 << 40})
	o.awaitStatus(o.m, "pre-switchover")
	o.m.execute("migrate-continue", map[string]any{"state": "pre-switchover"})
	o.end()
	o.requireArrived()
}

// An order that is not sound is dropped as a whole, and one range that is not in
// migrated RAM is left out. The free ranges are used all the same.
func TestOrderThatIsNotSound(t *testing.T) {
	const size = 64 << 20
	const dropped = -1
	one := hot[1]
	for _, tc := range []struct {
		name      string
		hot, cold []freeset.Range
		counts    [2]uint64 // instead of the lists' lengths
		wantHot   int64
	}{
		{name: "none", wantHot: dropped},
		{name: "hot is not sorted", hot: []freeset.Range{hot[1], hot[0]}, cold: cold, wantHot: dropped},
		{name: "cold is not sorted", hot: hot, cold: []freeset.Range{hot[1], cold[0]}, wantHot: dropped},
		{name: "hot overlaps", hot: []freeset.Range{one, one}, wantHot: dropped},
		{name: "not pages", hot: []freeset.Range{{GPA: one.GPA + 1, Length: pageSize}}, wantHot: dropped},
		{name: "no pages", hot: []freeset.Range{{GPA: one.GPA}}, wantHot: dropped},
		{name: "around all addresses", wantHot: dropped,
			hot: []freeset.Range{{GPA: one.GPA, Length: -one.GPA &^ (pageSize - 1)}, {}}},
		{name: "too many are hot", hot: hot, counts: [2]uint64{256, 0}, wantHot: dropped},
		{name: "too many are cold", hot: hot, counts: [2]uint64{1, 255}, wantHot: dropped},
		{name: "very many", hot: hot, counts: [2]uint64{1, 1<<64 - 1}, wantHot: dropped},
		{name: "one is not RAM", wantHot: int64(one.Length),
			hot: []freeset.Range{one, {GPA: size + 1<<20, Length: pageSize}}},
		{name: "one is not all RAM", wantHot: int64(one.Length),
			hot: []freeset.Range{one, {GPA: size - pageSize, Length: 2 * pageSize}}},
		{name: "all of them are cold, too", hot: hot, cold: []freeset.Range{{Length: 640 << 10},
			{GPA: 1 << 20, Length: 63 << 20}}, wantHot: bytesOf(hot)},
		{name: "free ones are hot", hot: []freeset.Range{free}, wantHot: int64(free.Length)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrdered(t, pageSize)
			o.begin()
			w := o.m.awaitAsked(o.here)
			w.putRanges(slices.Concat([]freeset.Range{free}, tc.hot, tc.cold))
			counts := [2]uint64{uint64(len(tc.hot)), uint64(len(tc.cold))}
			if tc.counts != [2]uint64{} {
				counts = tc.counts
			}
			w.put64(protocol.WindowHotCountOffset, counts[0])
			w.put64(protocol.WindowColdCountOffset, counts[1])
			w.publish(protocol.AnswerOK, free)
			o.end()
			requireHint(t, o.m, "ok")
			if got, _ := o.order(); got != tc.wantHot {
				t.Errorf("%d bytes are hot, want %d", got, tc.wantHot)
			}
			warns := 0
			if tc.wantHot == dropped && counts != [2]uint64{} {
				warns = 1
			}
			if got := o.m.countSaid("is not sound"); got != warns {
				t.Errorf("QEMU warns %d times of an order that is not sound, want %d", got, warns)
			}
			if slices.ContainsFunc(o.sent(), func(at uint64) bool { return o.class(at) == classFree }) {
				t.Error("pages are sent that are free")
			}
			o.requireArrived()
		})
	}
}
