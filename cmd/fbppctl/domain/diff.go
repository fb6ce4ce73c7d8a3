// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// Diff returns what is different between two definitions, as diff -u prints it, or "".
func Diff(before, after string) string {
	return strings.TrimPrefix(udiff.Unified("before", "after", before, after), "\n")
}
