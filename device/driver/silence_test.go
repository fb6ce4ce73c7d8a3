// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestASilentDriverIsGivenUpEarly(t *testing.T) {
	for name, c := range map[string]struct {
		timeout, message time.Duration // 0: none
		end              time.Duration
		want             error
	}{
		"silent": {
			timeout: 20 * time.Second, end: 5 * time.Second, want: errSilent,
		},
		"silent for a short while": {
			timeout: 2 * time.Second, end: time.Second, want: errSilent,
		},
		"silent until an early end": {
			timeout: 900 * time.Millisecond, end: 900 * time.Millisecond,
			want: context.DeadlineExceeded,
		},
		"heard": {
			timeout: 20 * time.Second, message: 4999 * time.Millisecond,
			end: 20 * time.Second, want: context.DeadlineExceeded,
		},
		"heard too late": {
			timeout: 20 * time.Second, message: 5001 * time.Millisecond,
			end: 5 * time.Second, want: errSilent,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, begun := New(Options{}), time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				defer cancel()
				ctx, stop := s.whileHeard(ctx)
				defer stop()
				if c.message != 0 {
					time.AfterFunc(c.message, func() {
						s.mu.Lock()
						defer s.mu.Unlock()
						s.messages++
					})
				}
				<-ctx.Done()
				if end, got := time.Since(begun), context.Cause(ctx); end != c.end || got != c.want {
					t.Errorf("after %v: %v, want %v after %v", end, got, c.want, c.end)
				}
			})
		})
	}
}

func TestTheBudgetFollowsWhatIsLeft(t *testing.T) {
	for name, c := range map[string]struct {
		hold, left  time.Duration
		us, entries uint32
	}{
		"much is left":        {time.Millisecond, time.Minute, 1000, 8000},
		"just enough is left": {time.Millisecond, 16 * time.Millisecond, 1000, 8000},
		"half of it is left":  {time.Millisecond, 8 * time.Millisecond, 500, 4000},
		"long holds":          {time.Second, time.Second, 62500, 500},
		"nothing is left":     {time.Second, -time.Second, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{HoldBudget: c.hold, HoldEntries: 8000})
			if us, entries := s.budget(c.left); us != c.us || entries != c.entries {
				t.Errorf("%d us and %d entries, want %d and %d", us, entries, c.us, c.entries)
			}
		})
	}
}
