// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// partAt is a part about the pages from first on, of which these were used.
func partAt(first uint64, used ...int) protocol.SampleReport {
	r := protocol.SampleReport{First: first}
	for _, i := range used {
		r.Pages[i/8] |= 1 << (i % 8)
	}
	return r
}

// A sample is in the guest's own pages, which are of 4, 16 or 64 KiB.
func TestSampleOfEachPageSize(t *testing.T) {
	const window, last = protocol.SampledPages, protocol.SampledPages - 1
	for shift := uint8(protocol.MinPageShift); shift <= protocol.MaxPageShift; shift += 2 {
		t.Run(fmt.Sprintf("pages of %d KiB", 1<<shift>>10), func(t *testing.T) {
			pages := func(first, n uint64) freeset.Range {
				return freeset.Range{GPA: first << shift, Length: n << shift}
			}
			memory := []freeset.Range{pages(0, 3*window)}
			p := programs{asked: &asked{sample: &Sample{Hot: freeset.New(memory)}}}
			for _, r := range []protocol.SampleReport{
				partAt(0, 0, 7, 8, 100),
				partAt(window, 0, last-1, last),
				partAt(2*window, 0),
				partAt(1<<40-window, 0, last), // in no memory
			} {
				p.sampled(r, shift)
			}
			want := []freeset.Range{
				pages(0, 1), pages(7, 2), pages(100, 1), pages(window, 1), pages(2*window-2, 3),
			}
			hot := p.asked.sample.Hot
			if diff := cmp.Diff(want, slices.Collect(hot.Ranges(1))); diff != "" {
				t.Error(diff)
			}
			if frames := uint64(8) << (shift - freeset.FrameShift); hot.Frames() != frames {
				t.Errorf("%d frames are hot, want %d", hot.Frames(), frames)
			}
		})
	}
}
