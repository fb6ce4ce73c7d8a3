// SPDX-License-Identifier: Apache-2.0

package window

import "github.com/fbpp-project/fbpp/device/protocol"

// Request is what the frontend asks.
type Request struct {
	Generation uint64
	DeadlineNS int64  // CLOCK_MONOTONIC; the answer is ignored after it
	Cancelled  uint64 // requests up to this one are no longer wanted
	Paused     bool   // the guest does not run
	NeedsOrder bool   // an order is of use, or the frontend cannot tell
	Boot       uint32 // counts resets of the machine and loads of a saved state
	Vmcoreinfo uint64 // where the guest says that its note is; 0 if it does not say
}

// Request reads the newest request.
func (w *Window) Request() Request {
	// The generation comes first: it was stored after deadline and flags.
	generation := w.load64(protocol.WindowAskGenerationOffset)
	r := Request{
		Generation: generation,
		DeadlineNS: int64(w.load64(protocol.WindowAskDeadlineOffset)),
		Cancelled:  w.load64(protocol.WindowCancelGenerationOffset),
	}
	flags := w.load32(protocol.WindowAskFlagsOffset)
	r.NeedsOrder = w.terms.Features&protocol.WindowFeatureNeeds == 0 ||
		flags&protocol.WindowAskOrder != 0
	if w.CanPeek() {
		r.Paused = flags&protocol.WindowAskPaused != 0
		r.Boot = w.load32(protocol.WindowBootOffset)
		r.Vmcoreinfo = w.load64(protocol.WindowVmcoreinfoOffset)
	}
	return r
}

// Outcome is how a migration ended, as the frontend tells it. It is not checked.
type Outcome struct {
	Number      uint64 // of the outcome; 0 before the first
	Generation  uint64 // of the migration's request; 0 if it made none
	Result      protocol.MigrationResult
	Hints       protocol.HintStatus
	Skipped     uint64 // bytes that the first pass left out
	Transferred uint64 // bytes of RAM and of the headers that describe it
	TotalMS     uint64
	DowntimeMS  uint64
	Order       protocol.OrderUse
	Hybrid      protocol.HybridStatus
}

// Outcome reads the newest outcome. It is zero before the first one, and always
// where the frontend does not tell outcomes.
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
		Order:       protocol.OrderUse(w.load32(protocol.WindowOutcomeOrderOffset)),
		Hybrid:      protocol.HybridStatus(w.load32(protocol.WindowOutcomeHybridOffset)),
	}
}
