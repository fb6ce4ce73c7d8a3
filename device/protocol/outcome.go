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
