// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"testing"
	"time"
)

// clearDelay is how long QEMU waits between the guest's answer and the clearing
// of the bitmap, in milliseconds. In that time the guest takes pages that it has
// reported as free.
const clearDelay = "500"

// A page may be free when the guest looks, and written before QEMU clears its
// bit. It must reach the destination all the same. Therefore QEMU arms the dirty
// log before it asks (docs/design.md).
func TestPagesAllocatedAfterTheAnswerAreSent(t *testing.T) {
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

// With arming switched off, the log is cleared after the answer, as QEMU's
// balloon device does it. This shows that the test above can fail.
func TestWithoutArmingMemoryIsLost(t *testing.T) {
	m := boot(t, setup{device: map[string]string{"x-clear-delay": clearDelay, "x-arm": "off"}})
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= 10; round++ {
		requireHints(t, m.migrate(), "ok")
		// The kernel's own pages can be lost as well. So a guest that no longer
		// answers counts as one that has lost memory.
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
	t.Fatal("no memory was lost without arming: this test cannot show that arming matters")
}
