// SPDX-License-Identifier: Apache-2.0

package protocol

import "fmt"

// AnswerStatus says how a request of the frontend ended (docs/window.md, Status).
type AnswerStatus uint32

// The statuses of an answer, by their value. [AnswerStatus.Info] has a row for each.
const (
	AnswerOK AnswerStatus = iota
	AnswerDisabled
	AnswerNoDriver
	AnswerRefused
	AnswerDriverTimeout
	AnswerBadReport
	AnswerCancelled
	AnswerInternal

	NumAnswers = iota // how many there are
)

// AnswerInfo describes a status of an answer.
type AnswerInfo struct {
	Name    string     // for operators: in fbppctl, the metrics and the log
	Hint    HintStatus // what QEMU shows in query-migrate
	Meaning string     // in docs/window.md
}

// Info returns the row of s. A value that is not listed counts as AnswerInternal. The
// tests of package tests/docs compare the rows with the documents and with QEMU's code.
func (s AnswerStatus) Info() AnswerInfo {
	rows := [NumAnswers]AnswerInfo{
		AnswerOK: {"ok", HintOK, "ranges are valid"},
		AnswerDisabled: {"disabled", HintBackendDisabled,
			"the operator switched the optimisation off at the backend"},
		AnswerNoDriver: {"no-driver", HintNoDriver,
			"no driver said hello, or its queues are stopped"},
		AnswerRefused: {"refused", HintRefused,
			"the driver refuses, or the backend may not look for itself, because of what the guest is"},
		AnswerDriverTimeout: {"driver-timeout", HintDriverTimeout,
			"the driver did not answer in time"},
		AnswerBadReport: {"bad-report", HintBadReport,
			"the report was malformed; all of it was discarded"},
		AnswerCancelled: {"cancelled", HintCancelled,
			"a newer request, a reset or a disconnect overtook this one"},
		AnswerInternal: {"internal", HintInternal, "the backend met an error of its own"},
	}
	if s >= NumAnswers {
		s = AnswerInternal
	}
	return rows[s]
}

// String implements fmt.Stringer with the name of the row.
func (s AnswerStatus) String() string {
	if s >= NumAnswers {
		return fmt.Sprintf("status(%d)", uint32(s))
	}
	return s.Info().Name
}

// HintStatus says what QEMU made of the hints of a migration. Unlike [AnswerStatus] it
// also covers a migration that made no request.
type HintStatus uint32

// The statuses of the hints, in the order of QEMU's MigrationFreePageHintStatus.
const (
	HintOK HintStatus = iota
	HintDisabled
	HintIncompatible
	HintNotRunning
	HintNoBackend
	HintBackendDisabled
	HintNoDriver
	HintRefused
	HintDriverTimeout
	HintTimeout
	HintBadReport
	HintBadRanges
	HintLate
	HintCancelled
	HintInternal
	HintNotShared
	HintNothingToSend

	NumHints = iota // how many there are
)

// String implements fmt.Stringer with the names of query-migrate.
func (s HintStatus) String() string {
	names := [NumHints]string{
		HintOK:              "ok",
		HintDisabled:        "disabled",
		HintIncompatible:    "incompatible",
		HintNotRunning:      "not-running",
		HintNoBackend:       "no-backend",
		HintBackendDisabled: "backend-disabled",
		HintNoDriver:        "no-driver",
		HintRefused:         "refused",
		HintDriverTimeout:   "driver-timeout",
		HintTimeout:         "timeout",
		HintBadReport:       "bad-report",
		HintBadRanges:       "bad-ranges",
		HintLate:            "late",
		HintCancelled:       "cancelled",
		HintInternal:        "internal",
		HintNotShared:       "not-shared",
		HintNothingToSend:   "nothing-to-send",
	}
	if s >= NumHints {
		return fmt.Sprintf("status(%d)", uint32(s))
	}
	return names[s]
}
