// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
)

// floorMargin is how far above the floor a migration may end: 5 %.
const floorMargin = 1.05

func TestFreeMemoryIsNotSent(t *testing.T) {
	for _, series := range guest.AllSeries() {
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, setup{series: series, memoryMiB: 768})
			// What is written while it migrates is sent twice, and is not
			// what is measured here.
			m.integrity("pause")
			info, err := m.vm.Fill(m.ctx, 512)
			if err != nil {
				t.Fatal(err)
			}
			figures := m.migrate()
			requireHints(t, figures, "ok")
			m.integrity("resume")
			m.requireSound()

			floor := figures.Floor(info.Buddy).Bytes()
			t.Logf("sent %d bytes, the floor is %d; %+v", figures.RAM.Transferred, floor, figures.Hints)
			if got := figures.RAM.Transferred; float64(got) > floorMargin*float64(floor) {
				t.Errorf("sent %d bytes, more than %v times the floor of %d", got, floorMargin, floor)
			}
			if skipped := figures.Hints.Skipped; skipped*100 < info.Buddy*95 {
				t.Errorf("skipped %d pages of %d that were free", skipped, info.Buddy)
			}
		})
	}
}

// soundRounds is how often a guest moves in the integrity test.
const soundRounds = 20

func TestMemoryStaysSoundThroughMigrations(t *testing.T) {
	for _, series := range guest.AllSeries() {
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, setup{series: series, memoryMiB: 320})
			// Free pages that are not zero: a page that is skipped wrongly
			// cannot look right by chance.
			if _, err := m.vm.Fill(m.ctx, 160); err != nil {
				t.Fatal(err)
			}
			var skipped int64
			for round := range soundRounds {
				figures := m.migrate()
				requireHints(t, figures, "ok")
				m.requireSound()
				m.awaitDriver()
				skipped += figures.Hints.Skipped
				if testing.Verbose() {
					t.Logf("round %d: sent %d MB, skipped %d pages, exchange %d µs", round+1,
						figures.RAM.Transferred>>20, figures.Hints.Skipped, figures.Hints.Exchange)
				}
			}
			last := m.integrity("verify")
			t.Logf("%d migrations skipped %d pages; %d pages written or verified in the guest, no mismatch", soundRounds, skipped, last.Count)
		})
	}
}
