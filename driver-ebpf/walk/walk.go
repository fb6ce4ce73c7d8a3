// SPDX-License-Identifier: Apache-2.0

// Package walk says what a walk over a guest's free memory is: its budget, what
// a step of it leaves, its figures. It imports nothing, so that those who take
// snapshots and those who report them need not know each other.
package walk

import "time"

// Walker takes snapshots of the free memory. It is for one goroutine at a time.
type Walker interface {
	// Begin starts a new snapshot. It forgets the one before, with its records.
	Begin()

	// Step goes on with the walk. No lock is held when it returns. After an
	// error nothing that was recorded counts.
	Step(Budget) (State, error)

	// Records returns the records that wait in the buffer, as the device takes
	// them (docs/spec.md, section 7.3), in the order of their finding. They are
	// the walker's memory, and stay as they are until Release or Begin.
	Records() []byte

	// Release empties the buffer: its records were consumed.
	Release()

	// Stats returns the figures of the snapshot so far.
	Stats() Stats
}

// Budget bounds one hold of one zone's lock. What is 0 is the walker's choice.
type Budget struct {
	Time    time.Duration
	Entries uint32 // blocks to visit
}

// State is what a step leaves.
type State int

// The states.
const (
	Done State = iota // every list was walked to its end
	More              // the budget cut some list, or a zone was missed
	Full              // the record buffer is full: consume it, then go on
)

// Stats tells what a snapshot did so far.
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
