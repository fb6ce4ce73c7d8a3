// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/source"
)

// errNotLooked says that there was no successful look for the kernel yet.
var errNotLooked = errors.New("the guest's kernel is not known")

// FindOrder implements source.Orderer. It does not look for the kernel: that takes too
// long beside a driver that answers, and cannot be interrupted at any time. Nor does it
// matter whether the kernel is alive, or what was written meanwhile: a page that is in the
// wrong place is sent all the same.
func (o *Observer) FindOrder(ctx context.Context, _ source.Request, order *source.Order) error {
	o.mu.Lock()
	l, g := o.life, o.guest
	if l == nil || g == nil {
		o.mu.Unlock()
		return errNotLooked
	}
	g.shared.Retain()
	o.mu.Unlock()
	defer g.shared.Release()
	k := l.kernel.In(g.mem)
	if err := k.Check(); err != nil {
		return err
	}
	_, err := k.Scan(ctx, introspect.ScanOptions{
		Workers: workers(),
		Order:   o.addTo(order),
	})
	return err
}

// addTo returns the function that adds what a scan finds to an order.
func (o *Observer) addTo(order *source.Order) func([]introspect.Run) error {
	order.From = o.Name()
	var hot, cold []freeset.Block
	return func(runs []introspect.Run) error {
		hot, cold = hot[:0], cold[:0]
		for _, r := range runs {
			b := freeset.Block{First: r.PFN, Count: uint64(r.Pages)}
			switch {
			case r.Heat == pages.Hot:
				hot = append(hot, b)
			case order.Cold != nil:
				cold = append(cold, b)
			}
		}
		if _, _, err := order.Hot.Add(hot, true); err != nil {
			return fmt.Errorf("note hot pages: %w", err)
		}
		if len(cold) == 0 {
			return nil
		}
		if _, _, err := order.Cold.Add(cold, true); err != nil {
			return fmt.Errorf("note cold pages: %w", err)
		}
		return nil
	}
}
