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
		sample: &driver.Sample{Hot: hot},
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
