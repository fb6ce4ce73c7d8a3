// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// Errors of records. An overlap is freeset.ErrOverlap.
var (
	errUnaligned = errors.New("block is not aligned to its size")
	errClass     = errors.New("block has a class that is not defined")
	errOrder     = errors.New("block is larger than any memory")
)

// maxBlockShift bounds a block to 1 TiB, so that no shift overflows.
const maxBlockShift = 40

// batchSize is how many records are decoded before they are added: a batch has
// to fit into the L1 cache.
const batchSize = 256

// addRecords gives the blocks of the packed records in p to free. The length of p is a
// multiple of RecordSize. pageShift is log2 of the guest's page size. The guest
// may change p at any time, so each record is decoded from one read. outside
// counts the frames that are not in free's memory. The error names the first bad
// record that was found; the records before it were given. Some overlaps are found later, see
// freeset.Adder. It asks goOn again and again, and returns its error: the guest decides how much
// work there is.
func addRecords(
	free *freeset.Adder, p []byte, pageShift uint8, overlapOK bool, goOn func() error,
) (outside uint64, err error) {
	var batch [batchSize]freeset.Block
	for at := 0; len(p)-at >= protocol.RecordSize; {
		if err := goOn(); err != nil {
			return outside, err
		}
		n := min((len(p)-at)/protocol.RecordSize, batchSize)
		decoded, decodeErr := decodeRecords(batch[:n], p[at:], pageShift)
		done, left, err := free.Add(batch[:decoded], overlapOK)
		outside += left
		if err == nil {
			err = decodeErr
		}
		if err != nil {
			// For the error only: the guest may have changed the record since.
			bad := p[at+done*protocol.RecordSize:]
			return outside, fmt.Errorf("record %d (%v): %w", at/protocol.RecordSize+done,
				protocol.Record(binary.LittleEndian.Uint64(bad)), err)
		}
		at += decoded * protocol.RecordSize
	}
	return outside, nil
}

// largeBlock is the size in frames, 1 GiB, from which on a block ends its batch: the larger it
// is, the longer it takes to add, and a guest may repeat it.
const largeBlock = 1 << 18

// decodeRecords fills blocks from the records in p, up to the first large or bad one, and
// returns how many it decoded.
func decodeRecords(blocks []freeset.Block, p []byte, pageShift uint8) (int, error) {
	scale := (pageShift - freeset.FrameShift) & 63
	page := uint64(1) << scale // in frames
	top := maxBlockShift - pageShift
	for i := range blocks {
		at := i * protocol.RecordSize // with both ends, a slice costs half as much
		r := protocol.Record(binary.LittleEndian.Uint64(p[at : at+protocol.RecordSize]))
		pfn, order := r.PFN(), r.Order()
		switch {
		case uint8(r) == 0: // a single page, as most records of a long report
			blocks[i] = freeset.Block{First: pfn << scale, Count: page}
			continue
		case uint8(r) > top: // as it is with every other class
			if r.Class() != protocol.ClassFree {
				return i, errClass
			}
			return i, errOrder
		case pfn&(1<<order-1) != 0:
			return i, errUnaligned
		}
		// A pfn has 56 bits and a page at most 64 KiB, which is 16 frames.
		blocks[i] = freeset.Block{First: pfn << scale, Count: page << order}
		if blocks[i].Count >= largeBlock {
			return i + 1, nil
		}
	}
	return len(blocks), nil
}

// eachRun calls f with the n bytes at offset off of a chain's readable part, in
// pieces of whole records. It does not copy, so f reads guest memory. Only a
// record that lies across segments is copied together first.
func eachRun(c content, off, n int, f func(p []byte) error) error {
	return vhostuser.Guard(func() error {
		var split [protocol.RecordSize]byte
		have := 0 // bytes in split
		for _, s := range c.Readable() {
			p := s.Bytes
			if off >= len(p) {
				off -= len(p)
				continue
			}
			p = p[off:min(len(p), off+n)]
			off, n = 0, n-len(p)

			if have > 0 {
				k := copy(split[have:], p)
				p, have = p[k:], have+k
				if have < len(split) {
					continue
				}
				if err := f(split[:]); err != nil {
					return err
				}
				have = 0
			}
			whole := len(p) &^ (protocol.RecordSize - 1)
			if err := f(p[:whole]); err != nil {
				return err
			}
			have = copy(split[:], p[whole:])
			if n == 0 {
				break
			}
		}
		return nil
	})
}
