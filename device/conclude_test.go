// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"testing"

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

// What was free in a sample and is used now is hot. Where most of it seems to be used, as when it
// is not known what is free, the sample counts for what it has seen alone.
func TestWhatIsNewIsHot(t *testing.T) {
	memory := []freeset.Range{{GPA: 0, Length: 1 << 30}}
	set := func(blocks ...freeset.Block) *freeset.Set {
		s := freeset.New(memory)
		if _, _, err := s.Add(blocks, false); err != nil {
			t.Fatal(err)
		}
		return s
	}
	used := freeset.Block{First: 8, Count: 4}
	x := &driver.Sample{Hot: set(used), Free: set(freeset.Block{First: 100, Count: 50})}
	for name, c := range map[string]struct {
		free *freeset.Set
		want uint64
	}{
		"nothing new":   {set(freeset.Block{First: 100, Count: 50}), 4},
		"ten new pages": {set(freeset.Block{First: 100, Count: 40}), 14},
		"hot and freed": {set(used, freeset.Block{First: 100, Count: 40}), 10},
		"nothing known": {set(), 4},
	} {
		hot := set(freeset.Block{First: 1000, Count: 9}) // of an order before
		if useSample(hot, x, c.free); hot.Frames() != c.want {
			t.Errorf("%s: %d hot pages, want %d", name, hot.Frames(), c.want)
		}
	}
	if x.Hot.Frames() != 4 || x.Free.Frames() != 50 {
		t.Error("the sample has changed")
	}
}
