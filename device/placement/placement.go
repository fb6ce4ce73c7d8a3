// SPDX-License-Identifier: Apache-2.0

// Package placement says where a guest's memory is, and how soon each part of it is worth having
// in faster memory: what is hot first, what is cold last, and what is free never. Whoever moves
// memory, from one NUMA node to another say, goes by it. It is a hint: memory that is in the wrong
// class is moved too early, too late, or stays where it is, and nothing is lost.
package placement

import (
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

	free Class = "free"
)

// Classes returns the classes in that order.
func Classes() []Class { return []Class{Hot, Other, Cold} }

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
	Regions []Region `json:"regions"`
	Free    uint64   `json:"free"` // how much is in no class
	// Why says why nothing is known of the guest's kernel. All memory is Other then, but for
	// what a sample has found to be hot.
	Why string `json:"why,omitempty"`
}

// Ranges are ranges of one class, sorted by address. A class may come in several of them.
type Ranges struct {
	Class  Class           `json:"class"`
	Ranges []freeset.Range `json:"ranges"`
}

// MaxRanges bounds the number of ranges of all classes.
const MaxRanges = 1 << 20

// maxBatch is how many ranges come at once.
const maxBatch = 4096

// Sets are what is known of a guest's memory. They cover the same memory, and may overlap: what
// is free is neither hot nor cold, and what is hot is not cold.
type Sets struct{ Free, Hot, Cold *freeset.Set }

// NewSets returns empty sets that cover memory.
func NewSets(memory []freeset.Range) *Sets {
	return &Sets{freeset.New(memory), freeset.New(memory), freeset.New(memory)}
}

// Layout is memory in its classes. It has the sets that it was made of, and no others: those of
// a large guest take much memory.
type Layout struct {
	memory []freeset.Range // sorted, and none adjacent
	sets   *Sets
	grain  uint64 // frames: smaller ranges of free and of cold memory do not count as such
	free   uint64 // bytes
}

// hole is the largest hole between hot frames that is hot, too: 60 KiB.
const hole = 15

// Arrange puts memory into its classes. Where that makes more than most ranges,
// small free and cold ones do not count as such, and larger holes in what is hot are hot. It takes
// the sets over.
func Arrange(memory []freeset.Range, sets *Sets, most int) *Layout {
	l := &Layout{memory: freeset.Merge(memory), sets: sets, grain: 1}
	for {
		sets.Hot.CloseHoles(hole + l.grain - 1)
		if l.measure(most) <= most || l.grain > sets.Free.Capacity() {
			return l
		}
		l.grain *= 2
	}
}

// measure sets l.free, and returns the number of ranges, or a number above most.
func (l *Layout) measure(most int) (n int) {
	l.free = 0
	for class, r := range l.walk {
		if class == free {
			l.free += r.Length
		} else if n++; n > most {
			break
		}
	}
	return n
}

// walk yields all memory by address, each part with its class.
func (l *Layout) walk(yield func(Class, freeset.Range) bool) {
	// What comes first counts where several are.
	var cursors [3]*cursor
	for i, of := range []struct {
		class Class
		set   *freeset.Set
		grain uint64
	}{{free, l.sets.Free, l.grain}, {Hot, l.sets.Hot, 1}, {Cold, l.sets.Cold, l.grain}} {
		cursors[i] = newCursor(of.class, of.set.Ranges(of.grain))
		defer cursors[i].stop()
	}
	for _, m := range l.memory {
		for at := m.GPA; at < m.End(); {
			class, end := Other, m.End()
			for _, c := range cursors {
				if !c.seek(at) {
					continue
				}
				if c.now.GPA > at {
					end = min(end, c.now.GPA)
					continue
				}
				class, end = c.class, min(end, c.now.End())
				break
			}
			if !yield(class, freeset.Range{GPA: at, Length: end - at}) {
				return
			}
			at = end
		}
	}
}

// Free returns how much memory is in no class, in bytes.
func (l *Layout) Free() uint64 { return l.free }

// Ranges calls each with all ranges, class after class, in the order in which they are worth
// moving. The slice is valid until each returns. An error of each ends it.
func (l *Layout) Ranges(each func(Ranges) error) error {
	batch := make([]freeset.Range, 0, maxBatch)
	for _, class := range Classes() {
		batch = batch[:0]
		for is, r := range l.walk {
			if is != class {
				continue
			}
			if batch = append(batch, r); len(batch) < maxBatch {
				continue
			}
			if err := each(Ranges{class, batch}); err != nil {
				return err
			}
			batch = batch[:0]
		}
		if len(batch) == 0 {
			continue
		}
		if err := each(Ranges{class, batch}); err != nil {
			return err
		}
	}
	return nil
}
