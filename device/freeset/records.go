// SPDX-License-Identifier: Apache-2.0

package freeset

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/device/wire"
)

// maxBlockShift bounds a block to 1 TiB, so that no shift overflows.
const maxBlockShift = 40

// AddRecords adds the blocks of the packed records in p, whose length is a
// multiple of wire.RecordSize; pageShift is the guest's. p may be memory that
// the guest changes meanwhile: each record is read once. The error names the
// record; those before it were added.
func (s *Set) AddRecords(p []byte, pageShift uint8, overlapOK bool) error {
	for i := 0; i+wire.RecordSize <= len(p); i += wire.RecordSize {
		r := wire.Record(binary.LittleEndian.Uint64(p[i:]))
		if err := s.addRecord(r, pageShift, overlapOK); err != nil {
			return fmt.Errorf("record %d (%v): %w", i/wire.RecordSize, r, err)
		}
	}
	return nil
}

func (s *Set) addRecord(r wire.Record, pageShift uint8, overlapOK bool) error {
	pfn, order := r.PFN(), r.Order()
	if r.Class() != wire.ClassFree {
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
