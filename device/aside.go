// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"time"

	"github.com/fbpp-project/fbpp/device/source"
)

// aside is a search for an order, while a source that knows none is asked. A nil one is
// over.
type aside struct {
	cancel context.CancelFunc
	done   chan struct{} // closed at the end of the search
	order  *source.Order
	err    error // valid after done
}

// lookAside begins a search. freeMu is held until it has ended.
func lookAside(ctx context.Context, by source.Orderer, r source.Request, o *source.Order) *aside {
	ctx, cancel := context.WithCancel(ctx)
	a := &aside{cancel: cancel, done: make(chan struct{}), order: o}
	go func() {
		defer close(a.done)
		a.err = by.FindOrder(ctx, r, o)
	}()
	return a
}

// end ends a search, which no longer writes to its order then.
func (a *aside) end() {
	if a == nil {
		return
	}
	a.cancel()
	<-a.done
}

// await waits for the end of the search, but no longer than patience. It returns nil if
// the search failed or was late.
func (a *aside) await(patience time.Duration) *source.Order {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
	}
	if a.end(); a.err != nil {
		return nil
	}
	return a.order
}
