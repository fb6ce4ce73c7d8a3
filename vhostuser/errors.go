// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

// ErrQueueStopped is returned by the methods of a queue that the frontend has
// stopped, or whose frontend is gone. Nothing was written to guest memory.
var ErrQueueStopped = errors.New("queue is stopped")

// ErrUnpopOrder is returned by [Queue.Unpop] for a chain that is not the one
// popped last.
var ErrUnpopOrder = errors.New("chain is not the last one popped")

// ErrNotNegotiated is returned by methods whose feature the frontend did not negotiate.
var ErrNotNegotiated = errors.New("its feature was not negotiated")

// RingError reports that the driver violated the rules of a ring, or that the ring's memory
// is gone. The queue stays broken until the frontend sets it up again.
type RingError struct {
	// Queue is the queue's index.
	Queue int
	// Err says what was wrong.
	Err error
}

// Error implements error.
func (e *RingError) Error() string {
	return fmt.Sprintf("queue %d: broken ring: %v", e.Queue, e.Err)
}

// Unwrap returns the cause.
func (e *RingError) Unwrap() error { return e.Err }

// MemoryFault is an access to guest memory that has no memory behind it, such
// as that of a file which the frontend truncated.
type MemoryFault = shm.Fault

// Guard runs f, which may read [Segment.Bytes]. If f causes a memory fault, f ends there,
// its deferred calls run, and Guard returns a *[MemoryFault]. Any other panic passes
// through. Guard covers only f's own goroutine. Kick already runs inside a Guard; a fault
// there breaks the queue.
func Guard(f func() error) error { return shm.Guard(f) }
