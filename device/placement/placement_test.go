// SPDX-License-Identifier: Apache-2.0

package placement_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/placement"
)

const frame = 1 << freeset.FrameShift

// at is a range of frames.
func at(first, count uint64) freeset.Range {
	return freeset.Range{GPA: first * frame, Length: count * frame}
}

// add adds ranges of frames to a set.
func add(t *testing.T, set *freeset.Set, all ...freeset.Range) {
	t.Helper()
	for _, r := range all {
		b := freeset.Block{First: r.GPA / frame, Count: r.Length / frame}
		if _, _, err := set.Add([]freeset.Block{b}, true); err != nil {
			t.Fatal(err)
		}
	}
}

// collect returns the ranges of each class, and the classes in the order in which they come.
func collect(
	t *testing.T, l *placement.Layout,
) (all map[placement.Class][]freeset.Range, order []placement.Class) {
	t.Helper()
	all = make(map[placement.Class][]freeset.Range)
	err := l.Ranges(func(r placement.Ranges) error {
		if len(r.Ranges) == 0 {
			t.Error("a part without ranges")
		}
		all[r.Class] = append(all[r.Class], slices.Clone(r.Ranges)...)
		order = append(order, r.Class)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, slices.Compact(order)
}

func TestMemoryIsArrangedByClass(t *testing.T) {
	memory := []freeset.Range{at(16, 1000), at(4096, 1000)}
	sets := placement.NewSets(memory)
	add(t, sets.Free, at(100, 50), at(4200, 1))
	// A page that is free is that before all, then hot. The hole of 5 between hot ones is hot.
	add(t, sets.Hot, at(140, 20), at(165, 10), at(4096, 4))
	add(t, sets.Cold, at(90, 20), at(170, 10))
	l := placement.Arrange(memory, sets, placement.MaxRanges)
	all, order := collect(t, l)
	want := map[placement.Class][]freeset.Range{
		placement.Hot:  {at(150, 25), at(4096, 4)},
		placement.Cold: {at(90, 10), at(175, 5)},
		placement.Other: {
			at(16, 74), at(180, 836), at(4100, 100), at(4201, 895),
		},
	}
	for class, ranges := range want {
		if !slices.Equal(all[class], ranges) {
			t.Errorf("%s: %v, want %v", class, all[class], ranges)
		}
	}
	if !slices.Equal(order, []placement.Class{placement.Hot, placement.Other, placement.Cold}) {
		t.Errorf("the order is %v", order)
	}
	if l.Free() != 51*frame {
		t.Errorf("%d bytes are free", l.Free())
	}
}

func TestMemoryOfWhichNothingIsKnownIsOfOneClass(t *testing.T) {
	memory := []freeset.Range{at(16, 10), at(26, 10), at(100, 1)} // two adjacent regions
	l := placement.Arrange(memory, placement.NewSets(memory), 10)
	all, order := collect(t, l)
	if !slices.Equal(order, []placement.Class{placement.Other}) ||
		!slices.Equal(all[placement.Other], []freeset.Range{at(16, 20), at(100, 1)}) {
		t.Errorf("%v in the order %v", all, order)
	}
}

// Scattered memory is arranged by coarser ranges. Each frame that is no longer free is in a class.
func TestScatteredMemoryMakesFewRanges(t *testing.T) {
	const frames, most = 1 << 16, 100
	memory := []freeset.Range{at(0, frames)}
	sets := placement.NewSets(memory)
	random := rand.New(rand.NewPCG(1, 2))
	for _, set := range []*freeset.Set{sets.Free, sets.Hot, sets.Cold} {
		for range frames / 16 {
			add(t, set, at(random.Uint64N(frames), 1+random.Uint64N(4)))
		}
	}
	add(t, sets.Free, at(1000, 8000)) // what is large stays free
	l := placement.Arrange(memory, sets, most)
	all, _ := collect(t, l)
	sum, n := l.Free(), 0
	for _, ranges := range all {
		n += len(ranges)
		for _, r := range ranges {
			sum += r.Length
		}
	}
	if n > most || sum != frames*frame || l.Free() < 8000*frame {
		t.Errorf("%d ranges of %d frames, of which %d are free", n, sum/frame, l.Free()/frame)
	}
}

func TestAnErrorEndsTheRanges(t *testing.T) {
	memory := []freeset.Range{at(0, 3)}
	sets := placement.NewSets(memory)
	add(t, sets.Hot, at(0, 1))
	l := placement.Arrange(memory, sets, 10)
	calls := 0
	err := l.Ranges(func(placement.Ranges) error {
		calls++
		return io.ErrShortWrite
	})
	if !errors.Is(err, io.ErrShortWrite) || calls != 1 {
		t.Errorf("%d calls, and %v", calls, err)
	}
}

// A layout of a large guest takes next to nothing beside the sets: the unit's MemoryMax= has room
// for three, see docs/operating.md.
func TestALayoutMakesNoFurtherSets(t *testing.T) {
	const frames = 64 << 30 >> freeset.FrameShift
	memory := []freeset.Range{at(0, frames)}
	sets := placement.NewSets(memory)
	blocks := make([]freeset.Block, 1)
	for i, set := range []*freeset.Set{sets.Free, sets.Hot, sets.Cold} {
		for first := uint64(i) * 64; first < frames; first += 256 {
			blocks[0] = freeset.Block{First: first, Count: 60}
			if _, _, err := set.Add(blocks, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l := placement.Arrange(memory, sets, 10_000)
	if err := l.Ranges(func(placement.Ranges) error { return nil }); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	const set = frames / 8
	if made := after.TotalAlloc - before.TotalAlloc; made > set/2 {
		t.Errorf("%d bytes were allocated, and a set has %d", made, set)
	}
}
