// SPDX-License-Identifier: Apache-2.0

// Package placement says where a guest's memory is, and how soon each part of it is worth having
// in faster memory: what is hot first, what is cold last, and what is free never. Whoever moves
// memory, from one NUMA node to another say, goes by it. It is a hint: memory that is in the wrong
// class is moved too early, too late, or stays where it is, and nothing is lost.
package placement

import (
	"fmt"
	"iter"

	"github.com/fbpp-project/fbpp/device/freeset"
)

// Class is how soon memory is worth moving.
type Class string

// The classes, in the order in which memory is worth moving. Memory that is in none of them is
// free.
const (
	Hot   Class = "hot"
	Other Class = "other" // neither hot nor cold, or nothing is known of it
	Cold  Class = "cold"  // clean page cache that nobody has used for long
)

// Region is a piece of guest memory, and where it lies: Length bytes from Offset on, in the file
// that fbppd has open as FD. Device and Inode tell whether that is still the same file.
type Region struct {
	GPA    uint64 `json:"gpa"`
	Length uint64 `json:"length"`
	FD     int    `json:"fd"`
	Offset uint64 `json:"offset"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// Memory is where a guest's memory is. Sizes are in bytes.
type Memory struct {
	PID     int      `json:"pid"` // of fbppd, which has the files open
	Regions []Region `json:"regions"`
	Free    uint64   `json:"free"` // how much is in no class
	// Why says why nothing is known of the guest's kernel. All memory is Other then.
	Why string `json:"why,omitempty"`
}

// Ranges are ranges of one class, sorted by address. A class may come in several of them.
type Ranges struct {
	Class  Class           `json:"class"`
	Ranges []freeset.Range `json:"ranges"`
}

// MaxRanges bounds the number of ranges of all classes.
const MaxRanges = 1 << 18

// maxBatch is how many ranges come at once.
const maxBatch = 4096

// Sets are what is known of a guest's memory. They cover the same memory, and may overlap: what
// is free is neither hot nor cold, and what is hot is not cold.
type Sets struct{ Free, Hot, Cold *freeset.Set }

// NewSets returns empty sets that cover memory.
func NewSets(memory []freeset.Range) *Sets {
	return &Sets{freeset.New(memory), freeset.New(memory), freeset.New(memory)}
}

// Layout is memory in its classes.
type Layout struct {
	hot, other, cold *freeset.Set
	free             uint64
}

// hole is the largest hole between hot frames that is hot, too: 60 KiB.
const hole = 15

// Arrange puts memory into its classes. Where that makes more than most ranges, it goes by coarser
// ranges: free and cold ones that are small do not count as such, and larger holes in what is hot
// are hot. It changes sets.
func Arrange(memory []freeset.Range, sets *Sets, most int) (*Layout, error) {
	for grain := uint64(1); ; grain *= 4 {
		l, err := arrange(memory, sets, grain)
		if err != nil {
			return nil, err
		}
		if l.count(most) <= most || grain > sets.Free.Capacity() {
			return l, nil
		}
	}
}

func arrange(memory []freeset.Range, sets *Sets, grain uint64) (*Layout, error) {
	l := &Layout{cold: freeset.New(memory), other: freeset.New(memory), hot: sets.Hot}
	free := freeset.New(memory)
	all := func(yield func(freeset.Range) bool) {
		for _, r := range memory {
			if !yield(r) {
				return
			}
		}
	}
	for _, part := range []struct {
		to   *freeset.Set
		from iter.Seq[freeset.Range]
	}{
		{free, sets.Free.Ranges(grain)}, {l.cold, sets.Cold.Ranges(grain)}, {l.other, all},
	} {
		for r := range part.from {
			b := freeset.Block{First: r.GPA >> freeset.FrameShift, Count: r.Length >> freeset.FrameShift}
			if _, _, err := part.to.Add([]freeset.Block{b}, true); err != nil {
				return nil, fmt.Errorf("arrange memory: %w", err)
			}
		}
	}
	l.hot.CloseHoles(hole * grain)
	l.hot.Subtract(free)
	l.cold.Subtract(free)
	l.cold.Subtract(l.hot)
	l.other.Subtract(free)
	l.other.Subtract(l.hot)
	l.other.Subtract(l.cold)
	l.free = free.Frames() << freeset.FrameShift
	return l, nil
}

// count returns the number of ranges, or a number above most.
func (l *Layout) count(most int) (n int) {
	for _, set := range []*freeset.Set{l.hot, l.other, l.cold} {
		for range set.Ranges(1) {
			if n++; n > most {
				return n
			}
		}
	}
	return n
}

// Free returns how much memory is in no class, in bytes.
func (l *Layout) Free() uint64 { return l.free }

// Ranges calls each with all ranges, class after class, in the order in which they are worth
// moving. The slice is valid until each returns. An error of each ends it.
func (l *Layout) Ranges(each func(Ranges) error) error {
	batch := make([]freeset.Range, 0, maxBatch)
	for _, of := range []struct {
		class Class
		set   *freeset.Set
	}{{Hot, l.hot}, {Other, l.other}, {Cold, l.cold}} {
		batch = batch[:0]
		for r := range of.set.Ranges(1) {
			if batch = append(batch, r); len(batch) < maxBatch {
				continue
			}
			if err := each(Ranges{of.class, batch}); err != nil {
				return err
			}
			batch = batch[:0]
		}
		if len(batch) == 0 {
			continue
		}
		if err := each(Ranges{of.class, batch}); err != nil {
			return err
		}
	}
	return nil
}
