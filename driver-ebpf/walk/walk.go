// SPDX-License-Identifier: Apache-2.0

// Package walk defines the interface of a walk over a guest's free memory, its budget, states and
// figures. It imports no other package of this module. So the packages that take snapshots and
// those that report them do not depend on each other.
package walk

import "time"

// Walker takes snapshots of the free memory. Its methods must not be called concurrently.
type Walker interface {
	// Begin starts a new snapshot. It discards the last one and its records.
	Begin()

	// Step continues the walk within a budget. No lock is held when it returns. After an
	// error all records of the snapshot are invalid.
	Step(Budget) (State, error)

	// Records returns the records in the buffer, in wire format (docs/spec.md, section
	// 7.3) and in the order in which they were found. The walker owns the slice, and does
	// not change it until Release or Begin.
	Records() []byte

	// Release empties the buffer, after its records were consumed.
	Release()

	// Stats returns the figures of the snapshot so far.
	Stats() Stats
}

// Budget bounds one hold of one zone's lock. For a field that is 0 the walker uses a default.
type Budget struct {
	Time    time.Duration
	Entries uint32 // blocks to visit
}

// State is the state of the walk after a step.
type State int

// The states.
const (
	Done State = iota // every list was walked to its end
	More              // the budget cut some list, or a zone was missed
	Full              // the record buffer is full: consume and release it, then continue
)

// Stats are the figures of a snapshot so far.
type Stats struct {
	Records  uint64        // in all
	WalkTime time.Duration // in all holds
	HoldMax  time.Duration // longest hold
	Holds    uint32
	Restarts uint32        // lists that were begun again
	Drain    time.Duration // before the first hold, for per-CPU lists
	LeftOut  uint64        // blocks that were free at last and are not among the records, about
	Resumed  bool          // some lock was let go and taken again: blocks may repeat
}
