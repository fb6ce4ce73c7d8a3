// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"time"
)

// errSilent ends the context of a request whose driver is gone.
var errSilent = errors.New("the driver gave no sign of life")

// A driver that is gone costs the migration a quarter of its time, or minSilence where that
// is more. A driver that is at work has all of the time. It sends STARTED at once: one that
// wakes up later than after a quarter is too late anyway, since it takes three quarters of
// the time from then on.
const (
	silenceShare = 4
	minSilence   = time.Second
)

// whileHeard returns a context that ends with ctx, or with errSilent if no message of the
// driver comes for too long. Call stop when the request has ended. s.mu is not held.
func (s *Source) whileHeard(ctx context.Context) (_ context.Context, stop func()) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	s.mu.Lock()
	before := s.messages
	s.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(max(time.Until(deadline)/silenceShare, minSilence), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.messages == before {
			cancel(errSilent)
		}
	})
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}

// budget is the time and the entries of one hold of a lock. Where little time is left, a
// hold is shorter: the driver looks at its deadline between two holds.
func (s *Source) budget(left time.Duration) (us, entries uint32) {
	us, entries = s.config.BudgetUS, s.config.BudgetEntries
	if most := max(microseconds(left/holdShare), 1); us > most {
		entries = max(uint32(uint64(entries)*uint64(most)/uint64(us)), 1)
		us = most
	}
	return us, entries
}

// holdShare is the part of the time left that one hold may take: a sixteenth.
const holdShare = 16
