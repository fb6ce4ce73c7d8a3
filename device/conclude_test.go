// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/source"
)

// An order is worth no time that the answer does not have.
func TestOrderIsDroppedWhenTheTimeIsOver(t *testing.T) {
	memory := []freeset.Range{{GPA: 0, Length: 1 << 30}}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		ctx  context.Context
		want bool
	}{{t.Context(), true}, {over, false}} {
		f := &source.Findings{
			Free: freeset.New(memory), Order: &source.Order{Hot: freeset.New(memory)},
		}
		o := ordering{empty: func() *source.Order { return f.Order }}
		o.conclude(tc.ctx, f, nil)
		if got := f.Order != nil; got != tc.want {
			t.Errorf("there is an order: %v, want %v", got, tc.want)
		}
	}
}

// A sample tells the order also where a source that finds one has no time for it, and where
// nobody was asked.
func TestSampleNeedsNobodyElse(t *testing.T) {
	memory := []freeset.Range{{GPA: 0, Length: 1 << 30}}
	free, hot := freeset.New(memory), freeset.New(memory)
	for set, block := range map[*freeset.Set]freeset.Block{
		free: {First: 10, Count: 5}, hot: {First: 8, Count: 4},
	} {
		if _, _, err := set.Add([]freeset.Block{block}, false); err != nil {
			t.Fatal(err)
		}
	}
	sets := &orders{}
	sets.setMemory(memory)
	o := ordering{
		empty:  func() *source.Order { return sets.empty(false) },
		sample: &driver.Sample{Hot: hot, Free: freeset.New(memory)},
	}
	if o.isSought() {
		t.Error("an order is sought that is known")
	}
	f := &source.Findings{Free: free}
	o.conclude(t.Context(), f, nil)
	if f.Order == nil || f.Order.From != orderBySample || f.Order.Hot.Frames() != 2 {
		t.Errorf("the order is %+v", f.Order)
	}
	if hot.Frames() != 4 {
		t.Error("the sample has changed")
	}
	f = &source.Findings{Free: free}
	if new(ordering).conclude(t.Context(), f, nil); f.Order != nil || f.Phases != nil {
		t.Errorf("nobody wants an order: %+v", f)
	}
}

// What was free in a sample and is used now is hot. Where there is too much of that, or it is not
// known what is free, the sample counts for what it has seen alone.
func TestWhatIsNewIsHot(t *testing.T) {
	memory := []freeset.Range{{GPA: 0, Length: 1 << 30}}
	set := func(blocks ...freeset.Block) *freeset.Set {
		s := freeset.New(memory)
		if _, _, err := s.Add(blocks, false); err != nil {
			t.Fatal(err)
		}
		return s
	}
	used, unused := freeset.Block{First: 8, Count: 40}, freeset.Block{First: 100, Count: 150}
	x := &driver.Sample{Hot: set(used), Free: set(unused)}
	for name, c := range map[string]struct {
		free, cold *freeset.Set
		truncated  bool
		want       []freeset.Range
	}{
		"nothing new": {free: set(unused), want: ranged(used)},
		"ten new pages": {free: set(freeset.Block{First: 110, Count: 140}),
			want: ranged(used, freeset.Block{First: 100, Count: 10})},
		"ten new pages, half of them cold": {free: set(freeset.Block{First: 110, Count: 140}),
			cold: set(freeset.Block{First: 95, Count: 10}),
			want: ranged(used, freeset.Block{First: 105, Count: 5})},
		"a third is missing": {free: set(freeset.Block{First: 150, Count: 100}), want: ranged(used)},
		"truncated": {free: set(freeset.Block{First: 110, Count: 140}), truncated: true,
			want: ranged(used)},
		"nothing known": {free: set(), want: ranged(used)},
	} {
		f := &source.Findings{Free: c.free, Truncated: c.truncated, Order: &source.Order{
			Hot: set(freeset.Block{First: 1000, Count: 9}), Cold: c.cold, // of an order before
		}}
		useSample(f, x)
		got := slices.Collect(f.Order.Hot.Ranges(1))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	if x.Hot.Frames() != 40 || x.Free.Frames() != 150 {
		t.Error("the sample has changed")
	}
}

func ranged(blocks ...freeset.Block) (ranges []freeset.Range) {
	for _, b := range blocks {
		ranges = append(ranges, freeset.Range{
			GPA: b.First << freeset.FrameShift, Length: b.Count << freeset.FrameShift,
		})
	}
	return ranges
}
