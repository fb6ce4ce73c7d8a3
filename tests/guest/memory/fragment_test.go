// SPDX-License-Identifier: Apache-2.0

package memory

import "testing"

func TestFragmentKeepsAPageBetweenShortRuns(t *testing.T) {
	b, err := Fragment(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	var kept, run, longest int
	for off := 0; off < len(b.mem); off += PageSize {
		if b.mem[off+7] != 0 { // the number's last byte
			kept, run = kept+1, 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	// Runs of 1 to 8 pages have 4.5 on average, and a kept page each.
	if pages := len(b.mem) / PageSize; longest != longestRun || kept < pages/6 || kept > pages/4 {
		t.Errorf("kept %d of %d pages, the longest run between them has %d", kept, pages, longest)
	}
}
