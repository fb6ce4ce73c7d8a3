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

// life is a kernel in one boot, and whether its clock was seen to go on. A reset
// leaves the dead kernel in memory, where it still passes introspect's checks.
type life struct {
	kernel *introspect.Kernel
	ticks  uint64 // of its clock, when it was found
	at     time.Time
	told   bool // the guest said where its note is
	alive  bool // the clock was seen to go on
	// standing is what the kernel's own check said when the life was renewed: nil,
	// or that the kernel is not in normal operation.
	standing error
}

// renew returns the life of the kernel in mem. If that is still l's kernel, the
// result keeps what l knows; otherwise renew looks for another kernel, first at
// note, the address that the guest has told, or 0. l may be nil. quick is
// introspect.Options.Quick.
func (l *life) renew(
	ctx context.Context, mem *physmem.Memory, note uint64, quick bool,
) (*life, error) {
	hint := note
	if l != nil {
		k := l.kernel.In(mem)
		standing := k.Check()
		if standing == nil || errors.Is(standing, introspect.ErrEnding) {
			same := *l
			same.kernel, same.standing = k, standing
			return &same, nil
		}
		if hint == 0 {
			hint = k.NoteAddress()
		}
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
	standing := k.Check()
	if standing != nil && !errors.Is(standing, introspect.ErrEnding) {
		return nil, standing // another one has begun meanwhile
	}
	told := note != 0 && k.NoteAddress() == note
	return &life{kernel: k, ticks: ticks, at: at, told: told, standing: standing}, nil
}

// How to look for life. The clock of an idle kernel may stand still, but seldom
// for long.
const (
	lifePatience = 200 * time.Millisecond
	lifePoll     = 2 * time.Millisecond
	maxHZ        = 1000 // ticks a second
)

// check returns nil if the kernel is alive and, when it was renewed, was in normal
// operation. It waits up to lifePatience to see the clock go on for the first time.
func (l *life) check(ctx context.Context) error {
	for end := time.Now().Add(lifePatience); l.standing == nil && !l.alive; {
		ticks, err := l.kernel.Ticks()
		if err != nil {
			return fmt.Errorf("read the kernel's clock: %w", err)
		}
		if l.goneOn(ticks, time.Since(l.at)) {
			// What moved the clock may be another kernel.
			l.alive, l.standing = true, l.kernel.Check()
			break
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
	return l.standing
}

// goneOn says whether the clock has gone on, by no more ticks than there was time
// for. After a reset, a boot loader may overwrite the dead kernel's clock. Random
// data seldom passes as a clock. The image of another kernel has the initial time
// there, which is earlier.
func (l *life) goneOn(ticks uint64, since time.Duration) bool {
	return ticks > l.ticks && ticks-l.ticks <= uint64(since.Seconds()*maxHZ)+maxHZ
}
