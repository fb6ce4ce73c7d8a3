// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Layout of a split virtqueue, VIRTIO 1.2 section 2.7.
const (
	descSize      = 16
	availHeader   = 4 // le16 flags, le16 idx
	availElem     = 2
	usedHeader    = 4 // le16 flags, le16 idx
	usedElem      = 8 // le32 id, le32 len
	ringTailEvent = 2 // used_event or avail_event

	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	availNoInterrupt = 1
)

// desc is a copy of a descriptor: guest memory is read once, and then judged.
type desc struct {
	addr  uint64
	len   uint32
	flags uint16
	next  uint16
}

func readDesc(table []byte, i int) desc {
	var b [descSize]byte
	copy(b[:], table[i*descSize:])
	return desc{
		addr:  binary.LittleEndian.Uint64(b[0:]),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		next:  binary.LittleEndian.Uint16(b[14:]),
	}
}

// ring is the memory of a split virtqueue. Its methods access guest memory and
// must be called inside a Guard, by the holder of the queue's lock.
type ring struct {
	size              int
	desc, avail, used []byte
	log               *dirtyLog
	usedAddr          uint64 // guest address to log writes to used by
	logUsed           bool
}

// mapRing finds the ring's parts in mem. VIRTIO wants 16, 2 and 4 as
// alignments; those of avail and used are needed for atomic access.
func mapRing(mem *Memory, size int, addr wire.VringAddr, log *dirtyLog) (ring, error) {
	r := ring{size: size, log: log, usedAddr: addr.Log, logUsed: addr.Flags&wire.VringFLog != 0}
	var err error
	if r.desc, _, err = mem.ring(addr.Desc, uint64(size)*descSize, false); err != nil {
		return ring{}, fmt.Errorf("map descriptor table: %w", err)
	}
	if r.avail, _, err = mem.ring(addr.Avail, uint64(availHeader+size*availElem+ringTailEvent), false); err != nil {
		return ring{}, fmt.Errorf("map available ring: %w", err)
	}
	var usedAddr uint64
	if r.used, usedAddr, err = mem.ring(addr.Used, uint64(usedHeader+size*usedElem+ringTailEvent), true); err != nil {
		return ring{}, fmt.Errorf("map used ring: %w", err)
	}
	if mem.translated() {
		r.usedAddr = usedAddr // the address to log by is one to translate, too
	}
	if !shm.Aligned(r.desc, 16) || !shm.Aligned(r.avail, 2) || !shm.Aligned(r.used, 4) {
		return ring{}, errors.New("map ring: its parts are not aligned")
	}
	return r, nil
}

func (r *ring) availIdx() uint16   { return shm.Load16(r.avail, 2) }
func (r *ring) availFlags() uint16 { return shm.Load16(r.avail, 0) }

// availHead returns the head that the driver put at position pos, an index
// that counts modulo 2^16.
func (r *ring) availHead(pos uint16) uint16 {
	return shm.Load16(r.avail, availHeader+r.slot(pos)*availElem)
}

func (r *ring) usedIdx() uint16   { return shm.Load16(r.used, 2) }
func (r *ring) usedFlags() uint16 { return shm.Load16(r.used, 0) }

// putUsed writes the element at position pos of the used ring.
func (r *ring) putUsed(pos, head uint16, written uint32) {
	off := usedHeader + r.slot(pos)*usedElem
	shm.Store32(r.used, off, uint32(head))
	shm.Store32(r.used, off+4, written)
	r.mark(off, usedElem)
}

// publish makes the elements before idx visible to the driver. It stores
// used.flags, which is always zero, along with used.idx: see package shm.
func (r *ring) publish(idx uint16) {
	shm.Store32(r.used, 0, uint32(idx)<<16)
	r.mark(0, usedHeader)
}

func (r *ring) mark(off, n int) {
	if r.logUsed {
		r.log.mark(r.usedAddr+uint64(off), uint64(n))
	}
}

func (r *ring) slot(pos uint16) int { return int(pos) & (r.size - 1) }
