// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"testing"
	"time"
)

// clearDelay is how long QEMU waits before it uses the guest's answer, in
// milliseconds: the time in which pages that were free come into use. A
// property of the device for this test only.
const clearDelay = "500"

// A page may be free when the guest looks, and written before its bit is cleared.
// It must reach the destination all the same. That is what the dirty log is armed
// for before the question (docs/design.md).
func TestPagesTakenAfterTheAnswerArrive(t *testing.T) {
	m := boot(t, setup{device: map[string]string{"x-clear-delay": clearDelay}})
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		requireHints(t, m.migrate(), "ok")
		m.requireSound()
		m.awaitDriver()
	}
}

// The same with arming switched off: the log is cleared after the answer, as
// QEMU's balloon does it. This shows that the tests above can fail.
func TestWithoutArmingMemoryIsLost(t *testing.T) {
	m := boot(t, setup{device: map[string]string{"x-clear-delay": clearDelay, "x-arm": "off"}})
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= 10; round++ {
		requireHints(t, m.migrate(), "ok")
		// The kernel's own pages are lost as well: a guest that does not answer
		// has lost memory, too.
		ctx, cancel := context.WithTimeout(m.ctx, 30*time.Second)
		r, err := m.vm.Integrity(ctx, "verify")
		cancel()
		if err != nil {
			t.Logf("round %d: the guest answers no more: %v", round, err)
			return
		}
		if r.Mismatched != 0 {
			t.Logf("round %d: %d pages lost, such as %v", round, r.Mismatched, r.Mismatches[0])
			return
		}
		if line := sick.FindString(m.vm.Console()); line != "" {
			t.Logf("round %d: the guest's kernel says %q", round, line)
			return
		}
	}
	t.Fatal("no memory was lost: this test does not tell an armed migration from another")
}
