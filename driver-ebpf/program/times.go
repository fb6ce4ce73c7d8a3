// SPDX-License-Identifier: Apache-2.0

package program

import (
	"time"

	"go.uber.org/zap"
)

// times are how long the parts of a load took, as the child says. They are logged, and no more
// than that: it may lie.
type times struct {
	Parse    time.Duration // the object, and what the policy says of it
	Types    time.Duration // waited for the kernel's BTF
	Load     time.Duration // relocation, and the kernel
	Verifier time.Duration // of Load, as the kernel says; 0 where it does not
}

// load sets how long the load takes that has begun then.
func (t *times) load(begun time.Time) { t.Load = time.Since(begun) }

// log logs them. start is what it took to have a child that has the
// request. What is neither the verifier's nor the BTF's is ours.
func (t *times) log(lg *zap.Logger, took, start time.Duration, ready bool) {
	lg.Info("time of a load", zap.Duration("took", took),
		zap.Duration("ours", took-t.Types-t.Verifier), zap.Bool("ready", ready),
		zap.Duration("start", start), zap.Duration("parse", t.Parse),
		zap.Duration("types", t.Types), zap.Duration("load", t.Load),
		zap.Duration("verifier", t.Verifier))
}
