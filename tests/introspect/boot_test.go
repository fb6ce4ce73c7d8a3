// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"errors"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/tests/guest"
)

// From the reset to where the new kernel has proven itself, the guest has either
// no kernel, or the old one, by what memory holds. The old one must be gone when
// the new one is found.
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

func TestTicksTellWhetherAGuestRuns(t *testing.T) {
	s := mustBoot(t, machine{series: guest.Linux6_12, nodes: []int{512}})
	k := mustLocate(t, s.mustMemory(t), 0)
	ticks := func() uint64 {
		n, err := k.Ticks()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for first, deadline := ticks(), time.Now().Add(patience); ticks() == first; {
		if time.Now().After(deadline) {
			t.Fatal("no tick in a guest that runs")
		}
		s.mustTell(t, "view") // keeps it awake
	}
	s.mustQMP(t, "stop", nil, nil)
	first := ticks()
	time.Sleep(settle)
	if last := ticks(); last != first {
		t.Fatalf("%d ticks in a guest that is paused", last-first)
	}
}
