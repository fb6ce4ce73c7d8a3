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

// OrderUse says whether a migration used the order of an answer.
type OrderUse uint32

// What became of an order. OrderUnsaid is what older frontends leave.
const (
	OrderUnsaid OrderUse = 0
	OrderNone   OrderUse = 1
	OrderUsed   OrderUse = 2
)

// String implements fmt.Stringer. It is empty where nothing is said.
func (u OrderUse) String() string {
	switch u {
	case OrderUnsaid:
		return ""
	case OrderNone:
		return "none"
	case OrderUsed:
		return "used"
	}
	return fmt.Sprintf("order(%d)", uint32(u))
}

// HybridStatus is what came of a hybrid migration: the number in QEMU's
// MigrationHybridStatus plus one, and 0 where there was to be none.
type HybridStatus uint32

// String implements fmt.Stringer with the names of query-migrate. It is empty where
// there was to be no hybrid migration.
func (s HybridStatus) String() string {
	names := [...]string{
		"", "hot", "switched", "not-needed", "no-order", "no-postcopy", "too-slow", "nothing-to-send",
	}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("hybrid(%d)", uint32(s))
}
