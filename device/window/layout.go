// SPDX-License-Identifier: Apache-2.0

package window

import "fmt"

// Version is the version of the layout.
const Version = 1

// HeaderSize is the length of the part before the ranges; RangeSize that of
// one range.
const (
	HeaderSize = 4096
	RangeSize  = 16
)

// MinSize is the smallest window that holds ranges at all. Sizes are multiples
// of 4096.
const MinSize = 2 * HeaderSize

// MaxSize is the largest window that a frontend takes.
const MaxSize = 256 << 20

const magic = 0x50504246 // "FBPP"

// Offsets of the header's fields.
const (
	offMagic            = 0x000
	offVersion          = 0x004
	offCapacity         = 0x008
	offAskGeneration    = 0x040
	offAskDeadline      = 0x048
	offCancelGeneration = 0x050
	offDoneGeneration   = 0x080
	offStatus           = 0x088
	offFlags            = 0x08c
	offRangeCount       = 0x090
	offRangeBytes       = 0x098
	offWakeup           = 0x0a0
	offWalk             = 0x0a4
	offTransfer         = 0x0a8
	offDecode           = 0x0ac
	offHoldMax          = 0x0b0
	offHolds            = 0x0b4
)

const flagTruncated = 1 << 0

// Status says how a request ended.
type Status uint32

// The statuses.
const (
	StatusOK            Status = 0
	StatusDisabled      Status = 1 // the operator switched the optimisation off
	StatusNoDriver      Status = 2 // no driver said hello, or its queues are stopped
	StatusRefused       Status = 3 // the driver refuses: the guest's configuration
	StatusDriverTimeout Status = 4
	StatusBadReport     Status = 5
	StatusCancelled     Status = 6 // overtaken by a newer request, a reset, a disconnect
	StatusInternal      Status = 7

	// NumStatuses is the number of statuses.
	NumStatuses = 8
)

var statusNames = [NumStatuses]string{
	StatusOK:            "ok",
	StatusDisabled:      "disabled",
	StatusNoDriver:      "no-driver",
	StatusRefused:       "refused",
	StatusDriverTimeout: "driver-timeout",
	StatusBadReport:     "bad-report",
	StatusCancelled:     "cancelled",
	StatusInternal:      "internal",
}

// String implements fmt.Stringer with the names of docs/window.md.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint32(s))
}

// Request is what the frontend asks.
type Request struct {
	Generation uint64
	DeadlineNS int64  // CLOCK_MONOTONIC; the answer is ignored after it
	Cancelled  uint64 // requests up to this one are no longer wanted
}

// Answer ends a request. Without StatusOK it has no ranges.
type Answer struct {
	Status    Status
	Truncated bool // some free memory is not in the ranges
	Ranges    int
	Bytes     uint64
	Times     Times
}

// Times splits an exchange into its parts, in microseconds.
type Times struct {
	Wakeup   uint32 `json:"wakeup_us"`   // interrupt to the driver's first sign of life
	Walk     uint32 `json:"walk_us"`     // the guest's own figure
	Transfer uint32 `json:"transfer_us"` // until the last record was here, less the above
	Decode   uint32 `json:"decode_us"`   // decoding, coalescing, writing ranges
	HoldMax  uint32 `json:"hold_max_us"` // the guest's longest hold of one lock
	Holds    uint32 `json:"holds"`
}
