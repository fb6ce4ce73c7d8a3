// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// ring is a virtqueue in one of its two formats: its memory, and the positions
// that the device has reached in it. Methods that touch guest memory must be
// called inside a Guard, by the holder of the queue's lock, while the ring is
// attached. Package shm says why the order of accesses is right.
type ring interface {
	// attach finds the ring's parts in mem. The positions stay. An error may
	// be a Delay.
	attach(mem *guestmem.Snapshot, a wire.VringAddr, log *guestmem.DirtyLog) error
	// begin takes the positions from the base of SET_VRING_BASE and, where the
	// format has them there, from memory.
	begin(base uint32)
	// base returns the positions, for GET_VRING_BASE.
	base() uint32

	// fetch fills c with the next available chain. It returns false if there
	// is none, or if it fails: the position is then as before.
	fetch(c *Chain) (bool, error)
	// unfetch steps back over n slots of chains that were fetched last.
	unfetch(n int)
	// put writes a used element, which the driver does not see yet.
	put(e usedElem)
	// publish makes visible what was put.
	publish()
	// wantsCall says whether the driver wants to be interrupted for what was
	// published since the last time it was asked.
	wantsCall() bool

	// fresh says whether the driver made buffers available since it was last
	// asked, or since fetch found none.
	fresh() bool
	// forget makes fresh tell once more of what is available and not fetched.
	forget()
	// refuseKicks asks the driver not to kick.
	refuseKicks()
	// askKicks asks the driver to kick when it makes more buffers available
	// than fresh knows of. A call of fresh must follow, in case that it just
	// did.
	askKicks()
}

// usedElem is an element to put on the used side of a ring.
type usedElem struct {
	id      uint16 // head of the chain (split) or buffer id (packed)
	slots   int    // of the ring, that it completes
	written uint32
}

// dialect is what the negotiated features say about a ring.
type dialect struct {
	packed, indirect, eventIdx, inOrder bool
}

func dialectOf(f wire.Features) dialect {
	return dialect{
		packed:   f.Has(wire.FeatureRingPacked),
		indirect: f.Has(wire.FeatureIndirectDesc),
		eventIdx: f.Has(wire.FeatureEventIdx),
		inOrder:  f.Has(wire.FeatureInOrder),
	}
}

func newRing(d dialect, size int) ring {
	if d.packed {
		return &packedRing{dialect: d, size: size}
	}
	return &splitRing{dialect: d, size: size}
}

// checkSize checks the number of descriptors of a ring.
func (d dialect) checkSize(n uint32, limit int) error {
	switch {
	case n == 0 || n > uint32(limit):
		return fmt.Errorf("%d is not 1 to %d", n, limit)
	case n&(n-1) != 0 && !d.packed:
		return fmt.Errorf("%d is not a power of two", n)
	}
	return nil
}

// checkBase checks the positions of SET_VRING_BASE.
func (d dialect) checkBase(base uint32, size int) error {
	if !d.packed {
		if base > 0xffff {
			return fmt.Errorf("%#x is not an index of a split ring", base)
		}
		return nil
	}
	for _, half := range []uint32{base, base >> 16} {
		if i := int(half & packedIndex); size != 0 && i >= size {
			return fmt.Errorf("index %d is outside a packed ring of %d", i, size)
		}
	}
	return nil
}

// Descriptors have the same size in both formats, and these flags.
const (
	descSize = 16

	descNext     = 1
	descWrite    = 2
	descIndirect = 4
)

// desc is a copy of a descriptor: guest memory is read once, and then judged.
// The fields of the two formats are in different places. With one more field
// the compiler would not keep it in registers.
type desc struct {
	addr  uint64
	len   uint32
	flags uint16
	ref   uint16 // next (split) or buffer id (packed)
}

// part is a part of a ring that the device writes, and where the dirty log has
// it. Each write is followed by its mark.
type part struct {
	bytes []byte
	addr  uint64             // guest address to log by
	log   *guestmem.DirtyLog // nil: not logged
}

func (p *part) load16(off int) uint16 { return shm.Load16(p.bytes, off) }

// store16 has release semantics.
func (p *part) store16(off int, v uint16) {
	shm.Store16(p.bytes, off, v)
	p.mark(off, 2)
}

// store64 is a plain store, of two 32-bit fields.
func (p *part) store64(off int, lo, hi uint32) {
	binary.LittleEndian.PutUint64(p.bytes[off:], uint64(hi)<<32|uint64(lo))
	p.mark(off, 8)
}

func (p *part) mark(off, n int) {
	if p.log != nil {
		p.log.Mark(p.addr+uint64(off), uint64(n))
	}
}
