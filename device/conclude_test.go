// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"testing"

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
		new(ordering).conclude(tc.ctx, f, nil)
		if got := f.Order != nil; got != tc.want {
			t.Errorf("there is an order: %v, want %v", got, tc.want)
		}
	}
}
