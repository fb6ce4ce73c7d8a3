// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Descriptor flags, VIRTIO 1.2 section 2.7.5.
const (
	DescNext     = 1
	DescWrite    = 2
	DescIndirect = 4
)

// ErrTimeout is returned when the backend does not do in time what is waited for.
var ErrTimeout = errors.New("backend took too long")

// Buffer is an element of a descriptor chain.
type Buffer struct {
	// Addr is a guest physical address.
	Addr uint64
	Len  uint32
	// Write says that the device writes the buffer.
	Write bool
}

// Used is an element of the used ring.
type Used struct {
	Head, Len uint32
}

// Queue is the driver's side of a split virtqueue. It is not safe for
// concurrent use.
type Queue struct {
	Index, Size int
	// Desc, Avail and UsedRing are guest physical addresses.
	Desc, Avail, UsedRing uint64
	// Kick and Call are the eventfds. They belong to the queue.
	Kick, Call *Event

	guest    *Guest
	availIdx uint16 // next position to fill
	usedIdx  uint16 // next position to look at
	free     []uint16
	chains   map[uint32][]uint16 // descriptors by head
	base     uint16              // for the next start
}

// NewQueue allocates a ring of the given size in the guest.
func NewQueue(g *Guest, index, size int) (*Queue, error) {
	kick, err := NewEvent()
	if err != nil {
		return nil, err
	}
	callfd, err := NewEvent()
	if err != nil {
		kick.Close()
		return nil, err
	}
	q := &Queue{Index: index, Size: size, Kick: kick, Call: callfd, guest: g}
	q.Desc = g.Alloc(uint64(size) * 16)
	q.Avail = g.Alloc(uint64(size)*2 + 6)
	q.UsedRing = g.Alloc(uint64(size)*8 + 6)
	q.Reset()
	return q, nil
}

// Reset forgets all buffers and clears the ring, as a driver does that
// initialises the device.
func (q *Queue) Reset() {
	q.guest.Write(q.Desc, make([]byte, q.Size*16))
	q.guest.Write(q.Avail, make([]byte, q.Size*2+6))
	q.guest.Write(q.UsedRing, make([]byte, q.Size*8+6))
	q.availIdx, q.usedIdx, q.base = 0, 0, 0
	q.chains = make(map[uint32][]uint16)
	q.free = nil
	for i := range q.Size {
		q.free = append(q.free, uint16(i))
	}
}

// Warp makes all indices of an idle ring start at idx, to reach their wrap soon.
func (q *Queue) Warp(idx uint16) {
	q.availIdx, q.usedIdx, q.base = idx, idx, idx
	q.guest.store32(q.Avail, uint32(idx)<<16)
	q.guest.store32(q.UsedRing, uint32(idx)<<16)
}

// Close closes the eventfds.
func (q *Queue) Close() {
	q.Kick.Close()
	q.Call.Close()
}

// Addr describes where the ring is, as SET_VRING_ADDR does.
func (q *Queue) Addr(flags uint32) wire.VringAddr {
	return wire.VringAddr{
		Index: uint32(q.Index), Flags: flags,
		Desc: q.guest.User(q.Desc), Avail: q.guest.User(q.Avail), Used: q.guest.User(q.UsedRing),
		Log: q.UsedRing,
	}
}

// SetDesc writes descriptor i.
func (q *Queue) SetDesc(i int, addr uint64, n uint32, flags, next uint16) {
	q.guest.Write(q.Desc+uint64(i)*16, EncodeDesc(addr, n, flags, next))
}

// EncodeDesc encodes a descriptor.
func EncodeDesc(addr uint64, n uint32, flags, next uint16) []byte {
	b := binary.LittleEndian.AppendUint64(nil, addr)
	b = binary.LittleEndian.AppendUint32(b, n)
	b = binary.LittleEndian.AppendUint16(b, flags)
	return binary.LittleEndian.AppendUint16(b, next)
}

// PutAvail makes the chain at head available, whatever it is.
func (q *Queue) PutAvail(head uint16) {
	slot := uint64(int(q.availIdx) % q.Size)
	q.guest.Write(q.Avail+4+2*slot, binary.LittleEndian.AppendUint16(nil, head))
	q.availIdx++
	q.SetAvailIdx(q.availIdx)
}

// SetAvailIdx publishes an index, whatever it is. It clears avail.flags.
func (q *Queue) SetAvailIdx(idx uint16) { q.guest.store32(q.Avail, uint32(idx)<<16) }

// SetNoInterrupt sets or clears VIRTQ_AVAIL_F_NO_INTERRUPT.
func (q *Queue) SetNoInterrupt(on bool) {
	v := uint32(q.availIdx) << 16
	if on {
		v |= 1
	}
	q.guest.store32(q.Avail, v)
}

// Add makes a chain of bufs available, without a kick, and returns its head.
func (q *Queue) Add(bufs ...Buffer) (uint32, error) {
	if len(bufs) == 0 || len(bufs) > len(q.free) {
		return 0, fmt.Errorf("add %d buffers: %d descriptors are free", len(bufs), len(q.free))
	}
	ids := q.free[:len(bufs):len(bufs)]
	q.free = q.free[len(bufs):]
	for i, b := range bufs {
		flags, next := b.flags(), uint16(0)
		if i+1 < len(bufs) {
			flags, next = flags|DescNext, ids[i+1]
		}
		q.SetDesc(int(ids[i]), b.Addr, b.Len, flags, next)
	}
	head := uint32(ids[0])
	q.chains[head] = ids
	q.PutAvail(ids[0])
	return head, nil
}

// AddIndirect makes a chain of bufs available through a table at the guest
// physical address table, and returns its head.
func (q *Queue) AddIndirect(table uint64, bufs ...Buffer) (uint32, error) {
	var b []byte
	for i, buf := range bufs {
		flags := buf.flags()
		if i+1 < len(bufs) {
			flags |= DescNext
		}
		b = append(b, EncodeDesc(buf.Addr, buf.Len, flags, uint16(i+1))...)
	}
	if len(q.free) == 0 {
		return 0, errors.New("add indirect buffers: no descriptor is free")
	}
	q.guest.Write(table, b)
	id := q.free[0]
	q.free = q.free[1:]
	q.SetDesc(int(id), table, uint32(len(b)), DescIndirect, 0)
	q.chains[uint32(id)] = []uint16{id}
	q.PutAvail(id)
	return uint32(id), nil
}

func (b Buffer) flags() uint16 {
	if b.Write {
		return DescWrite
	}
	return 0
}

// Poll takes the next used element, if there is one.
func (q *Queue) Poll() (Used, bool) {
	if q.guest.load16(q.UsedRing+2) == q.usedIdx {
		return Used{}, false
	}
	off := q.UsedRing + 4 + 8*uint64(int(q.usedIdx)%q.Size)
	u := Used{Head: q.guest.load32(off), Len: q.guest.load32(off + 4)}
	q.usedIdx++
	q.free = append(q.free, q.chains[u.Head]...)
	delete(q.chains, u.Head)
	return u, true
}

// Wait takes the next used element; it waits for interrupts.
func (q *Queue) Wait(timeout time.Duration) (Used, error) {
	deadline := time.Now().Add(timeout)
	for {
		if u, ok := q.Poll(); ok {
			return u, nil
		}
		if err := q.Call.Wait(time.Until(deadline)); err != nil {
			return Used{}, fmt.Errorf("wait for used buffer of queue %d: %w", q.Index, err)
		}
	}
}

// Outstanding returns how many chains the device has not used yet.
func (q *Queue) Outstanding() int { return len(q.chains) }

// UsedIdx returns the device's index, as it is in memory.
func (q *Queue) UsedIdx() uint16 { return q.guest.load16(q.UsedRing + 2) }

// AvailIdx returns the driver's index.
func (q *Queue) AvailIdx() uint16 { return q.availIdx }

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// Resume makes the next start begin at what the device has used, as QEMU does
// when it lost the backend.
func (q *Queue) Resume() { q.base = q.UsedIdx() }
