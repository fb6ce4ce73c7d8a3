// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// CacheDropper drops the guest's cold page cache.
type CacheDropper interface {
	// Drop drops at most so many bytes, and calls dropped with the bytes of each step. It
	// begins no step after the end of ctx. A step may take long, and even hang.
	Drop(ctx context.Context, most uint64, dropped func(bytes uint64)) error
}

const (
	// dropShare is the part of the time until the walk is cut that dropping cache may take:
	// most of it is for the walk.
	dropShare = 4
	// dropPoll is how often the agent looks whether all is dropped. Meanwhile it waits for
	// events.
	dropPoll = 2 * time.Millisecond
)

// drop is one call of Drop, in a goroutine of its own. The agent does not wait for it
// longer than it may.
type drop struct {
	stop  context.CancelFunc
	done  chan struct{} // closed when Drop has returned
	bytes atomic.Uint64
	err   error // valid after done
}

func (a *Agent) beginDrop(most uint64, limit time.Duration) *drop {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	d := &drop{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		d.err = a.dropper.Drop(ctx, most, func(n uint64) { d.bytes.Add(n) })
	}()
	return d
}

func (d *drop) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// dropCache drops cold cache if the event asks for it. If another event voids the request
// meanwhile, it returns that event as next, with ok.
func (r *request) dropCache(ctx context.Context) (next protocol.Event, ok bool, err error) {
	a, e := r.a, &r.event
	limit := time.Duration(e.DropMS) * time.Millisecond
	begun := a.now()
	if !r.end.IsZero() {
		limit = min(limit, r.end.Sub(begun)/dropShare)
	}
	if a.dropper == nil || !e.DropsCache() || e.DropMiB == 0 || limit <= 0 {
		return next, false, nil
	}
	if a.dropping != nil && !a.dropping.ended() {
		a.lg.Warn("no cache is dropped: the kernel still works on an earlier request")
		return next, false, nil
	}
	d := a.beginDrop(uint64(e.DropMiB)<<20, limit)
	a.dropping = d
	defer d.stop()
	for ctx.Err() == nil && a.now().Sub(begun) < limit && !d.ended() {
		if next, ok, err = r.look(ctx, dropPoll); ok || err != nil {
			return next, ok, err
		}
	}
	r.dropped, r.dropTime = d.bytes.Load(), a.now().Sub(begun)
	fields := []zap.Field{zap.Uint64("bytes", r.dropped), zap.Duration("took", r.dropTime)}
	switch ended := d.ended(); {
	case ended && d.err != nil:
		a.lg.Warn("dropped cache, but not all that it could", append(fields, zap.Error(d.err))...)
	case !ended && r.dropped == 0 && r.dropTime >= limit:
		a.lg.Warn("no cache is dropped: the time for it ended before the first step", fields...)
	default:
		a.lg.Debug("dropped cache", append(fields, zap.Bool("ended", ended))...)
	}
	return protocol.Event{}, false, nil
}
