// SPDX-License-Identifier: Apache-2.0

package window

import "github.com/fbpp-project/fbpp/device/protocol"

// Request is what the frontend asks.
type Request struct {
	Generation uint64
	DeadlineNS int64  // CLOCK_MONOTONIC; the answer is ignored after it
	Cancelled  uint64 // requests up to this one are no longer wanted
	Paused     bool   // the guest does not run
	Boot       uint32 // counts what may have put another system into the guest
}

// Request reads what the frontend wants now.
func (w *Window) Request() Request {
	// The generation comes first: it was stored after deadline and flags.
	generation := w.load64(protocol.WindowAskGenerationOffset)
	r := Request{
		Generation: generation,
		DeadlineNS: int64(w.load64(protocol.WindowAskDeadlineOffset)),
		Cancelled:  w.load64(protocol.WindowCancelGenerationOffset),
	}
	if w.CanPeek() {
		r.Paused = w.load32(protocol.WindowAskFlagsOffset)&protocol.WindowAskPaused != 0
		r.Boot = w.load32(protocol.WindowBootOffset)
	}
	return r
}

// Outcome is what the frontend says became of a migration. It is its word only.
type Outcome struct {
	Number      uint64 // of the outcome; 0 before the first
	Generation  uint64 // the migration's request, or 0 if it asked nothing
	Result      protocol.MigrationResult
	Hints       protocol.HintStatus
	Skipped     uint64 // bytes that the first pass left out
	Transferred uint64 // bytes of RAM and what describes it
	TotalMS     uint64
	DowntimeMS  uint64
}

// Outcome reads the newest outcome. It is zero where the frontend tells none.
func (w *Window) Outcome() Outcome {
	if w.terms.Features&protocol.WindowFeatureOutcome == 0 {
		return Outcome{}
	}
	// The number comes first: it was stored after the others.
	number := w.load64(protocol.WindowOutcomeNumberOffset)
	return Outcome{
		Number:      number,
		Generation:  w.load64(protocol.WindowOutcomeGenerationOffset),
		Result:      protocol.MigrationResult(w.load32(protocol.WindowOutcomeMigrationOffset)),
		Hints:       protocol.HintStatus(w.load32(protocol.WindowOutcomeHintsOffset)),
		Skipped:     w.load64(protocol.WindowOutcomeSkippedOffset),
		Transferred: w.load64(protocol.WindowOutcomeTransferredOffset),
		TotalMS:     w.load64(protocol.WindowOutcomeTotalMSOffset),
		DowntimeMS:  w.load64(protocol.WindowOutcomeDowntimeMSOffset),
	}
}
