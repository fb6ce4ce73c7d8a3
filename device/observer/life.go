// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// life is a kernel, and whether its clock was seen to go on. A life is of one
// boot: a reset leaves a dead kernel in memory that would prove itself again.
type life struct {
	kernel *introspect.Kernel
	ticks  uint64 // of its clock, when it was found
	at     time.Time
	alive  bool
}

// renew returns the life for a guest whose memory is described so: the same
// where the kernel is the same, and that of the kernel it finds where it is not.
// l may be nil. The result is nil with an error. A quick look tells less of why
// there is no kernel.
func (l *life) renew(ctx context.Context, mem *physmem.Memory, quick bool) (*life, error) {
	hint := uint64(0)
	if l != nil {
		k := l.kernel.In(mem)
		err := k.Check()
		if err == nil || errors.Is(err, introspect.ErrEnding) {
			same := *l
			same.kernel = k
			return &same, nil
		}
		hint = k.NoteAddress()
	}
	at := time.Now()
	k, err := introspect.Locate(ctx, mem, introspect.Options{Hint: hint, Quick: quick})
	if err != nil {
		return nil, err
	}
	ticks, err := k.Ticks()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's clock: %w", err)
	}
	return &life{kernel: k, ticks: ticks, at: at}, nil
}

// Looking for life: an idle kernel's clock stands still for a while, but seldom
// for long.
const (
	lifePatience = 200 * time.Millisecond
	lifePoll     = 2 * time.Millisecond
	maxHZ        = 1000 // ticks a second
)

// check tells whether the kernel is alive and in normal operation, and waits a
// little for the first sign.
func (l *life) check(ctx context.Context) error {
	for end := time.Now().Add(lifePatience); ; {
		if err := l.kernel.Check(); err != nil {
			return err
		}
		if l.alive {
			return nil
		}
		ticks, err := l.kernel.Ticks()
		if err != nil {
			return fmt.Errorf("read the kernel's clock: %w", err)
		}
		if l.goneOn(ticks, time.Since(l.at)) {
			l.alive = true
			continue // and checked once more, as it lives
		}
		if time.Now().After(end) {
			return ErrNotAlive
		}
		select {
		case <-time.After(lifePoll):
		case <-ctx.Done():
			return fmt.Errorf("wait for a sign of the kernel: %w", context.Cause(ctx))
		}
	}
}

// goneOn tells whether the clock has gone on as a clock does: by no more ticks than
// there was time for. Whatever a boot loader writes there is seldom just that, and
// a kernel's image that it loads has the time at which a clock starts, which is
// earlier.
func (l *life) goneOn(ticks uint64, since time.Duration) bool {
	return ticks > l.ticks && ticks-l.ticks <= uint64(since.Seconds()*maxHZ)+maxHZ
}
