// SPDX-License-Identifier: Apache-2.0

package protocol

import "fmt"

// MigrationResult says how a migration ended, in the words of QEMU's
// query-migrate.
type MigrationResult uint32

// The results.
const (
	MigrationCompleted MigrationResult = 1
	MigrationFailed    MigrationResult = 2
	MigrationCancelled MigrationResult = 3
)

// String implements fmt.Stringer.
func (r MigrationResult) String() string {
	switch r {
	case MigrationCompleted:
		return "completed"
	case MigrationFailed:
		return "failed"
	case MigrationCancelled:
		return "cancelled"
	}
	return fmt.Sprintf("result(%d)", uint32(r))
}

// HintStatus says what QEMU made of the hints of a migration. The values are those
// of its MigrationFreePageHintStatus, in the same order. Unlike [AnswerStatus] it
// also covers a migration that made no request.
type HintStatus uint32

// String implements fmt.Stringer with the names of query-migrate.
func (s HintStatus) String() string {
	names := [...]string{
		"ok", "disabled", "incompatible", "not-running", "no-backend", "backend-disabled",
		"no-driver", "refused", "driver-timeout", "timeout", "bad-report", "bad-ranges", "late",
		"cancelled", "internal", "not-shared",
	}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("status(%d)", uint32(s))
}
