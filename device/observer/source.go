// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"errors"
	"runtime"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

var _ source.Orderer = (*Observer)(nil)

// Name implements source.Source.
func (o *Observer) Name() string { return "introspect" }

// workers returns how many goroutines one scan has.
func workers() int { return min(runtime.GOMAXPROCS(0), 4) }

// Ask implements source.Source: it reads the guest's memory map.
func (o *Observer) Ask(ctx context.Context, r source.Request, f *source.Findings) error {
	if r.Written == nil {
		return source.Failf(protocol.AnswerNoDriver, "this QEMU does not tell which pages were "+
			"written, so nothing that is read of a guest can be relied on")
	}
	begun := time.Now()
	k, release, err := o.ruling(ctx)
	if err != nil {
		return failure(ctx, err)
	}
	defer release()
	content, err := k.Content()
	if err != nil {
		return failure(ctx, err)
	}
	if content.Matters() {
		refusal := source.Failf(protocol.AnswerRefused, "Linux %s checks what is in its free pages "+
			"(page_poison, debug_pagealloc)", k.Release)
		refusal.Final = true
		return refusal
	}
	found := time.Now()
	s := newSieve(f.Free, r.Written, o.maxClaims)
	if !hasTimeForOrder(ctx, k.Memory().Size(), workers()) {
		f.Order = nil
	}
	options := introspect.ScanOptions{
		Workers:  workers(),
		FreeOnly: f.Order == nil,
		Free:     func(blocks []introspect.Block) error { return s.add(ctx, blocks) },
		CPULists: s.addList,
	}
	if f.Order != nil {
		options.Order = o.addTo(f.Order)
	}
	census, err := k.Scan(ctx, options)
	if err == nil {
		err = s.prove(ctx)
	}
	if err != nil {
		return failure(ctx, err)
	}
	if census.CPULists != nil {
		o.lg.Info("free pages on lists of CPUs are sent", zap.Error(census.CPULists))
	}
	f.Items = s.kept + s.dropped
	f.Phases = []source.Phase{
		{Name: source.PhaseFind, Time: found.Sub(begun)},
		{Name: source.PhaseScan, Time: time.Since(found) - s.peeking - s.sieving},
		{Name: source.PhasePeek, Time: s.peeking},
		{Name: source.PhaseSieve, Time: s.sieving},
	}
	f.Details = []source.Detail{
		{Name: "dropped-blocks", Value: s.dropped},
		{Name: "struct-pages", Value: census.Read},
		{Name: "peeks", Value: s.peeks},
	}
	return nil
}

// orderCost is what a scan with an order takes for a page, generously.
const orderCost = 60 * time.Nanosecond

// hasTimeForOrder says whether a scan with an order takes at most half of the time that is
// left. Without one it takes about half as long, and free blocks are worth more.
func hasTimeForOrder(ctx context.Context, size uint64, workers int) bool {
	deadline, ok := ctx.Deadline()
	need := time.Duration(size>>freeset.FrameShift) * orderCost / time.Duration(workers)
	return !ok || need <= time.Until(deadline)/2
}

// failure makes a Failure of an error.
func failure(ctx context.Context, err error) *source.Failure {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return source.Failf(protocol.AnswerDriverTimeout, "%v; there was no time left", err)
	case ctx.Err() != nil:
		return source.Failf(protocol.AnswerCancelled, "%v", context.Cause(ctx))
	case errors.Is(err, ErrNoMemory):
		return source.Failf(protocol.AnswerNoDriver, "%v", err)
	}
	return source.Failf(protocol.AnswerRefused, "%v", err)
}
