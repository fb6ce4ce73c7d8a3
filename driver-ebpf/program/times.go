// SPDX-License-Identifier: Apache-2.0

package program

import (
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// times are how long the parts of a load took, as the child says. They are logged, and no more
// than that: it may lie. The library does not tell the relocation from the kernel's part.
type times struct {
	Parse  time.Duration // the object, and what the policy says of it
	Types  time.Duration // the kernel's BTF
	Load   time.Duration // relocation, and the kernel
	Kernel time.Duration // system time of Load: the verifier's, for the most part
}

// log logs them, for a child that has ended. The rest of took is the start of the process, for
// the most part.
func (t *times) log(lg *zap.Logger, took time.Duration, child *os.ProcessState) {
	lg.Info("time of a load", zap.Duration("took", took), zap.Duration("parse", t.Parse),
		zap.Duration("types", t.Types), zap.Duration("load", t.Load),
		zap.Duration("kernel", t.Kernel), zap.Duration("user", child.UserTime()),
		zap.Duration("system", child.SystemTime()))
}

// systemTime returns how long this process was in the kernel so far.
func systemTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // documented to fail for no valid address only
	return time.Duration(u.Stime.Nano())
}
