// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"errors"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/tests/guest"
)

// Between a reset and the time when the new kernel can be found, memory shows either no
// kernel or still the old one. When the new kernel is found, the old one must be gone.
func TestAResetIsNoticed(t *testing.T) {
	for _, series := range []guest.Series{guest.Linux6_1, guest.Linux7_3} {
		t.Run(string(series), func(t *testing.T) {
			s := mustBoot(t, machine{series: series, nodes: []int{512}})
			mem := s.mustMemory(t)
			old := mustLocate(t, mem, 0)
			s.mustQMP(t, "set-action", map[string]any{"reboot": "reset"}, nil)
			s.mustQMP(t, "system_reset", nil, nil)
			deadline := time.Now().Add(patience)
			for {
				k, err := introspect.Locate(t.Context(), mem, introspect.Options{})
				gone := old.Check() // after, as the kernel may start between
				if err == nil && k.NoteAddress() != old.NoteAddress() ||
					errors.Is(gone, introspect.ErrUnproven) {
					if gone == nil {
						t.Fatal("the kernel before the reset is still believed")
					}
					if err == nil {
						t.Logf("of the old one: %v", gone)
						return
					}
				}
				if time.Now().After(deadline) {
					t.Fatalf("no new kernel was found: %v", err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}
