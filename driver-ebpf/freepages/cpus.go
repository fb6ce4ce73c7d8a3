// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// visitLimit bounds the time of all visits of a walk. On real hardware a visit takes about as
// long as it takes to move a thread.
const visitLimit = 5 * time.Millisecond

// visitor has the program walk the lists of free pages that each CPU keeps for itself. For
// that a thread reads the file on each CPU in turn. newVisitor makes one.
type visitor struct {
	turn  chan struct{} // full while a thread is on its way
	spare []string      // files that list CPUs which must not be disturbed
	limit time.Duration
}

func newVisitor(limit time.Duration, spare ...string) *visitor {
	return &visitor{turn: make(chan struct{}, 1), spare: spare, limit: limit}
}

// run calls visit on each CPU that the caller may use, from a thread that cannot leave that CPU
// meanwhile. It visits none if one must not be disturbed. A CPU may be busy with a real-time
// task for long. So run returns after the limit, and the thread makes no more visits then.
// Until it has ended, later calls do nothing.
func (v *visitor) run(visit func(cpu int)) {
	var allowed unix.CPUSet
	if namesCPU(v.spare) || unix.SchedGetaffinity(0, &allowed) != nil {
		return
	}
	select {
	case v.turn <- struct{}{}:
	default:
		return
	}
	var mu sync.Mutex // held during a visit
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		defer func() { close(done); <-v.turn }()
		eachCPU(allowed, func(cpu int) bool {
			mu.Lock()
			defer mu.Unlock()
			if over.Load() {
				return false
			}
			visit(cpu)
			return true
		})
	}()
	timeout := time.NewTimer(v.limit)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		over.Store(true)
		mu.Lock() // until the visit that has begun is over
		defer mu.Unlock()
	}
}

// eachCPU moves the calling thread to each CPU of a set, and calls f there until it returns
// false. CPUs to which it cannot move are left out.
func eachCPU(set unix.CPUSet, f func(cpu int) bool) {
	for cpu, left := 0, set.Count(); left > 0; cpu++ {
		if !set.IsSet(cpu) {
			continue
		}
		left--
		var one unix.CPUSet
		one.Set(cpu)
		if unix.SchedSetaffinity(0, &one) == nil && !f(cpu) {
			return
		}
	}
}
