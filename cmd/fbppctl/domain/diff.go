// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// Diff returns what is different between two definitions, as diff -U0 prints it, or "". It
// has no lines around a change: these may hold a secret.
func Diff(before, after string) string {
	text, err := udiff.ToUnified("before", "after", before, udiff.Lines(before, after), 0)
	if err != nil { // never for edits that udiff has made
		return err.Error()
	}
	return strings.TrimPrefix(text, "\n")
}
