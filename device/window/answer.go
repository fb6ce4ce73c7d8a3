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

// Answer ends a request. It has ranges, of either kind, only with AnswerOK.
type Answer struct {
	Status    protocol.AnswerStatus
	Truncated bool // some free memory is not in the ranges
	Written        // the free ranges
	Hot, Cold Written

	Source  string // name of the source that answered, or ""
	Phases  []source.Phase
	Details []source.Detail
}

// Written says what is in some of the window's slots.
type Written struct {
	Ranges int
	Bytes  uint64
}

// maxOrder bounds the hot and the cold ranges, each. The frontend has to look at
// all of them before it sends its first page.
const maxOrder = 1 << 18

// WriteRanges writes the ranges of free into the window's slots, for the next
// Publish. When there are more ranges than slots, it leaves out the shortest.
func (w *Window) WriteRanges(free *freeset.Set) Written {
	return w.write(free, 0, w.capacity)
}

// CanOrder says whether the frontend takes an order.
func (w *Window) CanOrder() bool { return w.terms.Features&protocol.WindowFeatureClasses != 0 }

// WriteOrder writes the ranges of hot and cold behind the free ones, which
// WriteRanges has written. No page is in two of the three sets. A set may be nil.
// Where slots run out, WriteOrder leaves out cold ranges first.
func (w *Window) WriteOrder(free Written, hot, cold *freeset.Set) (h, c Written) {
	if !w.CanOrder() {
		return h, c
	}
	if at := free.Ranges; hot != nil {
		h = w.write(hot, at, min(w.capacity-at, maxOrder))
	}
	if at := free.Ranges + h.Ranges; cold != nil {
		c = w.write(cold, at, min(w.capacity-at, maxOrder))
	}
	return h, c
}

// write writes a set's ranges into at most room slots from the slot at on. It
// doubles the least length of a range until all that remain fit.
func (w *Window) write(set *freeset.Set, at, room int) Written {
	for minFrames := uint64(1); ; minFrames *= 2 {
		var done Written
		fits := true
		for r := range set.Ranges(minFrames) {
			if done.Ranges == room {
				fits = false
				break
			}
			slot := w.mem[protocol.WindowHeaderSize+(at+done.Ranges)*protocol.WindowRangeSize:]
			binary.LittleEndian.PutUint64(slot, r.GPA)
			binary.LittleEndian.PutUint64(slot[8:], r.Length)
			done.Ranges++
			done.Bytes += r.Length
		}
		if fits {
			return done
		}
	}
}

// Publish answers request generation with a and the ranges that were written last,
// and wakes the frontend. The caller must not write ranges again before the next
// request.
func (w *Window) Publish(generation uint64, a Answer) {
	var flags uint32
	if a.Truncated {
		flags |= protocol.WindowTruncated
	}
	w.store32(protocol.WindowStatusOffset, uint32(a.Status))
	w.store32(protocol.WindowFlagsOffset, flags)
	w.store64(protocol.WindowRangeCountOffset, uint64(a.Ranges))
	w.store64(protocol.WindowRangeBytesOffset, a.Bytes)
	if w.CanOrder() {
		w.store64(protocol.WindowHotCountOffset, uint64(a.Hot.Ranges))
		w.store64(protocol.WindowColdCountOffset, uint64(a.Cold.Ranges))
	}
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
