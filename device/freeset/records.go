// SPDX-License-Identifier: Apache-2.0

package freeset

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// maxBlockShift bounds a block to 1 TiB, so that no shift overflows.
const maxBlockShift = 40

// AddRecords adds the blocks of the packed records in p, whose length is a
// multiple of protocol.RecordSize; pageShift is the guest's. p may be memory that
// the guest changes meanwhile: each record is read once. The error names the
// record; those before it were added.
func (s *Set) AddRecords(p []byte, pageShift uint8, overlapOK bool) error {
	for i := 0; i+protocol.RecordSize <= len(p); i += protocol.RecordSize {
		// A fragmented guest sends millions of small blocks.
		if pageShift == FrameShift {
			if i += s.addSmall(p[i:]); i+protocol.RecordSize > len(p) {
				break
			}
		}
		r := protocol.Record(binary.LittleEndian.Uint64(p[i:]))
		if err := s.addRecord(r, pageShift, overlapOK); err != nil {
			return fmt.Errorf("record %d (%v): %w", i/protocol.RecordSize, r, err)
		}
	}
	return nil
}

// maxSmall is the highest order of a block that fits into a word of the bitmap
// with another one.
const maxSmall = 5

// addSmall adds blocks from the beginning of p for as long as each is small,
// right, in one word of the area used last, and overlaps nothing. It returns
// the length of their records. What stopped it is left to addRecord.
func (s *Set) addSmall(p []byte) int {
	if s.last >= len(s.areas) {
		return 0
	}
	a := &s.areas[s.last]
	// Locals that the loop keeps in registers.
	words, first, count, low, high := a.bits, a.first, a.count, a.low, a.high
	done, frames := 0, uint64(0)
	for ; len(p)-done >= protocol.RecordSize; done += protocol.RecordSize {
		r := protocol.Record(binary.LittleEndian.Uint64(p[done:]))
		from := r.PFN() - first // wraps to a large number below first
		if from >= count {
			break
		}
		w := int(from >> 6)
		mask, n := uint64(1)<<(from&63), uint64(1)
		if kind := r & 0xff; kind != 0 { // more than a page
			n = 1 << (kind & 7)
			if kind > maxSmall || r.PFN()&(n-1) != 0 || n > count-from || from&63+n > 64 {
				break // also a class other than free
			}
			mask = (1<<n - 1) << (from & 63)
		}
		old := words[w]
		if old&mask != 0 {
			break
		}
		words[w] = old | mask
		frames += n
		if w < low {
			low = w
		}
		if w >= high {
			high = w + 1
		}
	}
	a.low, a.high = low, high
	s.free += frames
	return done
}

func (s *Set) addRecord(r protocol.Record, pageShift uint8, overlapOK bool) error {
	pfn, order := r.PFN(), r.Order()
	if r.Class() != protocol.ClassFree {
		return ErrClass
	}
	if uint(order)+uint(pageShift) > maxBlockShift {
		return ErrOutside
	}
	if pfn&(1<<order-1) != 0 {
		return ErrUnaligned
	}
	// A pfn has 56 bits and a page at most 64 KiB, which is 16 frames.
	scale := pageShift - FrameShift
	return s.Add(pfn<<scale, 1<<(order+scale), overlapOK)
}
