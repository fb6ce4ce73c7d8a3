// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// orders are the sets that an order is found in. Device.freeMu guards them.
type orders struct{ hot, cold freeset.Set }

func (o *orders) setMemory(ranges []freeset.Range) {
	o.hot.SetMemory(ranges)
	o.cold.SetMemory(ranges)
}

// empty returns an order to be found, without cold pages unless they are wanted.
func (o *orders) empty(cold bool) *source.Order {
	o.hot.Reset()
	o.cold.Reset()
	order := &source.Order{Hot: &o.hot}
	if cold {
		order.Cold = &o.cold
	}
	return order
}

// ordering is the order that is wanted for a request. The zero value wants none.
type ordering struct {
	empty   func() *source.Order
	cold    bool // cold memory, too
	hot     HotPolicy
	sample  *driver.Sample // tells what is hot; nil: nobody has sampled
	written *writes        // tell what is hot; nil: they do not
}

// isSought says whether somebody has to look for an order.
func (o *ordering) isSought() bool { return o.empty != nil && (o.byKernel() || o.cold) }

// byKernel says whether what is hot is for the guest's kernel to say.
func (o *ordering) byKernel() bool {
	return o.hot == HotKernel || o.hot == HotAuto && o.sample == nil
}

// ordering returns the order that is wanted for a request. d.mu is held.
func (d *Device) ordering(x *request, r source.Request, cold bool) ordering {
	o := ordering{
		empty: func() *source.Order { return d.orders.empty(cold) }, cold: cold, hot: d.hot,
	}
	switch {
	case d.hot == HotAuto || d.hot == HotSample:
		o.sample = d.freshSample()
	case d.hot == HotWritten && x.order && !x.paused && r.Written != nil:
		o.written = &writes{begun: x.begun, until: x.begun.Add(d.hotTime), ask: r.Written}
	}
	return o
}

// conclude is ordering.conclude, and logs why nothing is hot.
func (d *Device) conclude(ctx context.Context, o *ordering, f *source.Findings, side *aside) {
	if err := o.conclude(ctx, f, side); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		d.lg.Warn("it is not known what is hot", zap.Error(err))
	}
}

// isIgnorance says whether a failure means only that it is not known what is free.
func isIgnorance(status protocol.AnswerStatus) bool {
	switch status {
	case protocol.AnswerDisabled, protocol.AnswerNoDriver, protocol.AnswerRefused,
		protocol.AnswerDriverTimeout:
		return true
	}
	return false
}

// orderAlone returns findings with an order and nothing free, where the order needs nobody who
// knows the guest. It returns nil where there is none.
func (d *Device) orderAlone(
	ctx context.Context, o *ordering, failure *source.Failure,
) *source.Findings {
	if o.written == nil || ctx.Err() != nil {
		return nil
	}
	d.free.Reset()
	f := &source.Findings{Free: d.free, Truncated: true}
	d.conclude(ctx, o, f, nil)
	if f.Order == nil || f.Order.Hot.Frames() == 0 {
		return nil
	}
	d.lg.Warn("nobody knows what is free; hot is what is written", zap.String("why", failure.Why))
	return f
}

// orderGrace is how long free memory may wait for an order, which a driver's answer can
// overtake.
const orderGrace = 50 * time.Millisecond

// hole is the largest hole between hot pages, in frames, that is sent with them: 60 KiB.
const hole = driver.SampleHole

// conclude adds to findings what a search beside them found, if there was one, and
// settles their order, with what the policy calls hot. After an error nothing is hot.
func (o *ordering) conclude(ctx context.Context, f *source.Findings, side *aside) (err error) {
	if o.empty == nil {
		return nil
	}
	begun := time.Now()
	if f.Order == nil && side != nil {
		patience := grace(ctx)
		if o.written != nil { // there is more time than that
			patience = max(patience, time.Until(o.written.latest(ctx)))
		}
		f.Order = side.await(patience)
	}
	if !o.byKernel() {
		err = o.replaceHot(ctx, f)
	}
	if ctx.Err() != nil {
		f.Order = nil // there is no time left for it
	}
	settle(f)
	f.Phases = append(f.Phases, source.Phase{Name: source.PhaseOrder, Time: time.Since(begun)})
	return err
}

// replaceHot makes hot what a sample or the dirty log says, or nothing where neither is to be had.
func (o *ordering) replaceHot(ctx context.Context, f *source.Findings) error {
	switch {
	case f.Order != nil:
		f.Order.Hot.Reset()
	case o.written != nil || o.sample != nil:
		f.Order = &source.Order{Hot: o.empty().Hot}
	}
	switch {
	case o.written != nil:
		if err := o.written.find(ctx, f.Order.Hot); err != nil {
			if f.Order.Hot.Reset(); f.Order.Cold == nil {
				f.Order = nil
			}
			return err
		}
		f.Order.From = orderByWritten
	case o.sample != nil:
		f.Order.From = orderBySample
		useSample(f, o.sample)
	}
	return nil
}

// useSample makes hot what a sample says. What was free then, and is not now, is new, for the most
// part, so somebody uses it. If there is more of it than the guest works with, it is free, and the
// source did not prove that.
func useSample(f *source.Findings, x *driver.Sample) {
	hot := f.Order.Hot
	hot.Copy(x.Free)
	hot.Subtract(f.Free)
	if f.Order.Cold != nil {
		hot.Subtract(f.Order.Cold)
	}
	if f.Truncated || hot.Frames() > x.Hot.Frames() {
		hot.Reset()
	}
	hot.Unite(x.Hot)
}

// grace returns how long an order may be waited for.
func grace(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(0, min(orderGrace, time.Until(deadline)/4))
	}
	return orderGrace
}

// settle makes the sets of an order disjoint.
func settle(f *source.Findings) {
	o := f.Order
	if o == nil {
		return
	}
	o.Hot.CloseHoles(hole)
	o.Hot.Subtract(f.Free)
	if o.Cold != nil {
		o.Cold.Subtract(f.Free)
		o.Cold.Subtract(o.Hot)
	}
}

// ranges returns where the guest's memory is. m may be nil.
func ranges(m *vhostuser.Memory) (all []freeset.Range) {
	if m == nil {
		return nil
	}
	for _, r := range m.Regions() {
		all = append(all, freeset.Range{GPA: r.Addr, Length: r.Size})
	}
	return all
}
