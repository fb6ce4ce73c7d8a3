// SPDX-License-Identifier: Apache-2.0

package pagerun

import (
	"context"
	"time"
)

// Turn lets one program run at a time. All runners of an owner share one. A run that does not
// end keeps it: so a guest loses one processor to such programs, and no more.
type Turn struct{ taken chan struct{} }

// NewTurn returns a turn that is free.
func NewTurn() Turn { return Turn{make(chan struct{}, 1)} }

// take waits for the turn.
func (t Turn) take(ctx context.Context) error {
	late := time.NewTimer(runLimit)
	defer late.Stop()
	select {
	case t.taken <- struct{}{}:
		return nil
	case <-late.C:
		return ErrStuck
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t Turn) give() { <-t.taken }
