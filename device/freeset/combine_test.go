// SPDX-License-Identifier: Apache-2.0

package freeset

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSetsCombineAsAModelSays builds two sets of random blocks.
func TestSetsCombineAsAModelSays(t *testing.T) {
	memory := []Range{{0, 1 << 20}, {1 << 30, 3 << 30}}
	const first = 1<<18 + 1<<18 - 2000 // around the border of two chunks
	random := rand.New(rand.NewPCG(1, 2))
	fill := func(s *Set) map[uint64]bool {
		model := make(map[uint64]bool)
		for range 200 {
			b := Block{first + random.Uint64N(4000), 1 + random.Uint64N(100)}
			if random.IntN(4) == 0 {
				b = Block{random.Uint64N(250), 1 + random.Uint64N(6)}
			}
			if err := add(s, b.First, b.Count, true); err != nil {
				t.Fatal(err)
			}
			for n := b.First; n < b.First+b.Count; n++ {
				model[n] = true
			}
		}
		return model
	}
	for range 20 {
		a, b := New(memory), New(memory)
		inA, inB := fill(a), fill(b)
		a.Subtract(b)
		maps.DeleteFunc(inA, func(n uint64, _ bool) bool { return inB[n] })
		checkModel(t, a, inA)
		checkModel(t, b, inB)

		c := New(memory)
		inC := fill(c)
		c.Unite(b)
		maps.Copy(inC, inB)
		checkModel(t, c, inC)
		checkModel(t, b, inB)

		const most = 7
		a.CloseHoles(most)
		frames := slices.Sorted(maps.Keys(inA))
		for i, n := range frames[1:] {
			last := frames[i]
			if hole := n - last - 1; hole <= most && !(last < 256 && n >= 256) {
				for ; hole > 0; hole-- {
					inA[last+hole] = true
				}
			}
		}
		checkModel(t, a, inA)
	}
}

func TestHolesBetweenPiecesOfMemoryStay(t *testing.T) {
	s := New([]Range{{0, 4 * frame}, {6 * frame, 4 * frame}})
	if _, _, err := s.Add([]Block{{0, 4}, {6, 1}, {8, 1}}, false); err != nil {
		t.Fatal(err)
	}
	s.CloseHoles(16)
	checkModel(t, s, map[uint64]bool{0: true, 1: true, 2: true, 3: true, 6: true, 7: true, 8: true})
}

func TestASetOfOtherMemoryIsNotSubtracted(t *testing.T) {
	s, other := New([]Range{{0, 8 * frame}}), New([]Range{{0, 16 * frame}})
	if err := add(s, 1, 4, false); err != nil {
		t.Fatal(err)
	}
	s.Subtract(other)
	checkModel(t, s, nil)
}
