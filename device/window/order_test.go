// SPDX-License-Identifier: Apache-2.0

package window

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window/windowtest"
)

// spread returns n blocks of count frames, 16 frames apart.
func spread(n, first, count uint64) (blocks []freeset.Block) {
	for i := range n {
		blocks = append(blocks, freeset.Block{First: first + 16*i, Count: count})
	}
	return blocks
}

func frames(first, count uint64) freeset.Range {
	return freeset.Range{GPA: first << 12, Length: count << 12}
}

func TestOrderCrossesTheWindow(t *testing.T) {
	w, f := mustPair(t, minSize)
	free := w.WriteRanges(mustFree(t, spread(2, 0, 4)...))
	hot, cold := w.WriteOrder(free, mustFree(t, spread(2, 4, 2)...), mustFree(t, spread(1, 8, 1)...))
	f.Ask(time.Minute)
	w.Publish(1, Answer{Written: free, Hot: hot, Cold: cold})
	want := windowtest.Answer{
		Bytes:  8 << 12,
		Ranges: []freeset.Range{frames(0, 4), frames(16, 4)},
		Hot:    []freeset.Range{frames(4, 2), frames(20, 2)},
		Cold:   []freeset.Range{frames(8, 1)},
	}
	if diff := cmp.Diff(want, f.Answer(time.Minute)); diff != "" {
		t.Error(diff)
	}
	f.Ask(time.Minute)
	w.Publish(2, Answer{Status: protocol.AnswerNoDriver})
	want = windowtest.Answer{Status: protocol.AnswerNoDriver}
	if diff := cmp.Diff(want, f.Answer(time.Minute)); diff != "" {
		t.Error(diff)
	}
}

func TestOrderIsLeftOutBeforeFreeRanges(t *testing.T) {
	const slots = 256
	for name, tc := range map[string]struct {
		free, hot, cold             []freeset.Block
		wantFree, wantHot, wantCold int
	}{
		"all fit":         {spread(200, 0, 1), spread(50, 2, 1), spread(6, 4, 1), 200, 50, 6},
		"cold goes first": {spread(200, 0, 1), spread(50, 2, 1), spread(7, 4, 1), 200, 50, 0},
		"then hot":        {spread(250, 0, 1), spread(50, 2, 1), spread(6, 4, 1), 250, 0, 6},
		"the short ones": {
			spread(250, 0, 1), append(spread(50, 2, 1), spread(4, 2000, 8)...), nil, 250, 4, 0,
		},
		"free ones fill":   {spread(slots, 0, 1), spread(1, 2, 9), spread(1, 14, 1), slots, 0, 0},
		"nothing is given": {nil, nil, nil, 0, 0, 0},
	} {
		w, _ := mustPair(t, minSize)
		free := w.WriteRanges(mustFree(t, tc.free...))
		hot, cold := w.WriteOrder(free, mustFree(t, tc.hot...), mustFree(t, tc.cold...))
		got := []int{free.Ranges, hot.Ranges, cold.Ranges}
		if diff := cmp.Diff([]int{tc.wantFree, tc.wantHot, tc.wantCold}, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestWithoutTheFeatureThereIsNoOrder(t *testing.T) {
	w, f := mustPairOf(t, minSize, windowtest.Request(protocol.WindowFeaturePeek))
	set := mustFree(t, spread(3, 0, 1)...)
	if hot, cold := w.WriteOrder(Written{}, set, set); hot.Ranges+cold.Ranges != 0 || w.CanOrder() {
		t.Errorf("wrote %+v and %+v", hot, cold)
	}
	// The fields are another's, as long as CLASSES is not agreed.
	w.Publish(1, Answer{Hot: Written{3, 3 << 12}})
	for _, at := range []int{protocol.WindowHotCountOffset, protocol.WindowColdCountOffset, 0x1000} {
		if f.Word64(at) != 0 {
			t.Errorf("the field at %#x is %d", at, f.Word64(at))
		}
	}
}
