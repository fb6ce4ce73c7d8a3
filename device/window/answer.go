// SPDX-License-Identifier: Apache-2.0

package window

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

// Answer ends a request. It has ranges only with AnswerOK.
type Answer struct {
	Status    protocol.AnswerStatus
	Truncated bool // some free memory is not in the ranges
	Ranges    int
	Bytes     uint64

	Source  string // name of the source that answered, or ""
	Phases  []source.Phase
	Details []source.Detail
}

// WriteRanges writes the ranges of free into the window's slots, for the next
// Publish. When there are more ranges than slots, it leaves out the shortest: it
// doubles the least length of a range until all that remain fit. It returns how
// many ranges it wrote, and their bytes.
func (w *Window) WriteRanges(free *freeset.Set) (count int, bytes uint64) {
	for minFrames := uint64(1); ; minFrames *= 2 {
		count, bytes = 0, 0
		fits := true
		for r := range free.Ranges(minFrames) {
			if count == w.capacity {
				fits = false
				break
			}
			slot := w.mem[protocol.WindowHeaderSize+count*protocol.WindowRangeSize:]
			binary.LittleEndian.PutUint64(slot, r.GPA)
			binary.LittleEndian.PutUint64(slot[8:], r.Length)
			count++
			bytes += r.Length
		}
		if fits {
			return count, bytes
		}
	}
}

// Publish answers request generation with a and the ranges of the last
// WriteRanges, and wakes the frontend. The caller must not write ranges again
// before the next request.
func (w *Window) Publish(generation uint64, a Answer) {
	var flags uint32
	if a.Truncated {
		flags |= protocol.WindowTruncated
	}
	w.store32(protocol.WindowStatusOffset, uint32(a.Status))
	w.store32(protocol.WindowFlagsOffset, flags)
	w.store64(protocol.WindowRangeCountOffset, uint64(a.Ranges))
	w.store64(protocol.WindowRangeBytesOffset, a.Bytes)
	entries := a.entries()
	if w.terms.Version == protocol.WindowVersion1 {
		w.storeTimes(entries)
	} else {
		w.storeEntries(a.Source, entries)
	}
	w.store64(protocol.WindowDoneGenerationOffset, generation)
	w.wake()
}

// entry is a phase or a detail in the window's format.
type entry struct {
	name  string
	value uint64
	kind  uint32
}

func (a *Answer) entries() []entry {
	var es []entry
	for _, p := range a.Phases {
		es = append(es, entry{p.Name, uint64(max(p.Time/time.Microsecond, 0)), protocol.WindowEntryPhase})
	}
	for _, d := range a.Details {
		es = append(es, entry{d.Name, d.Value, protocol.WindowEntryDetail})
	}
	return es[:min(len(es), protocol.WindowMaxEntries)]
}

func (w *Window) storeEntries(source string, es []entry) {
	w.storeName(protocol.WindowSourceOffset, source)
	for i, e := range es {
		at := protocol.WindowEntriesOffset + i*protocol.WindowEntrySize
		w.storeName(at, e.name)
		w.store64(at+protocol.WindowNameSize, e.value)
		w.store32(at+protocol.WindowNameSize+8, e.kind)
	}
	w.store32(protocol.WindowEntryCountOffset, uint32(len(es)))
}

func (w *Window) storeName(at int, name string) {
	p := w.mem[at : at+protocol.WindowNameSize]
	clear(p[copy(p, name):])
}

// storeTimes writes the six fixed fields that version 1 has instead of entries.
func (w *Window) storeTimes(es []entry) {
	for i, name := range protocol.WindowTimes() {
		value := uint64(0)
		if k := slices.IndexFunc(es, func(e entry) bool { return e.name == name }); k >= 0 {
			value = min(es[k].value, 1<<32-1)
		}
		w.store32(protocol.WindowTimesOffset+4*i, uint32(value))
	}
}
