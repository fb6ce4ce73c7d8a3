// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
)

// Layout of a split virtqueue (section 2.7).
const (
	descSize     = 16
	descNext     = 1 << 0
	descWrite    = 1 << 1
	descIndirect = 1 << 2

	ringHeader   = 4 // flags, idx
	availEntry   = 2
	usedEntry    = 8
	noInterrupt  = 1 // avail.flags
	noNotify     = 1 // used.flags
	maxQueueSize = 256
	noDesc       = 0xffff
)

// queuePages is how many pages the three parts of a ring take.
const queuePages = 3

// Queue is the driver's side of a split virtqueue. Its methods must not be called concurrently. It
// checks everything that the device writes into the ring.
type Queue struct {
	size                 uint16
	descMem, avail, used []byte
	parts                [queuePages]dma.Slice
	notify               func()
	indirect             *dma.Region // one table of descriptors per page, nil: not negotiated

	chains   []chain // by head descriptor
	free     uint16  // first descriptor of the free list, linked by chains[].next
	freeLen  int
	availIdx uint16
	flags    uint16
	usedIdx  uint16
	kicked   uint16 // availIdx at the last kick
	inFlight int
	segments []dma.Segment // scratch
}

// chain is the driver's own copy of what it needs to know of a descriptor: the device could change
// the descriptor table.
type chain struct {
	next     uint16 // in the free list or in the chain
	length   uint16 // descriptors, of a head in flight; else 0
	writable uint32 // bytes that the device may write
	token    int
}

// newQueue places a queue in three pages. The number of descriptors is a power of two, and at most
// 256. If indirect descriptors were negotiated, tables has a page for each descriptor; otherwise it
// is nil.
func newQueue(
	size uint16, parts [queuePages]dma.Slice, tables *dma.Region, notify func(),
) (*Queue, error) {
	if size == 0 || size > maxQueueSize || size&(size-1) != 0 {
		return nil, fmt.Errorf("lay out queue: size %d", size)
	}
	q := &Queue{
		size:     size,
		parts:    parts,
		descMem:  parts[0].Bytes(),
		avail:    parts[1].Bytes(),
		used:     parts[2].Bytes(),
		indirect: tables,
		notify:   notify,
		chains:   make([]chain, size),
		freeLen:  int(size),
		segments: make([]dma.Segment, 0, maxQueueSize),
	}
	for i := range q.chains {
		q.chains[i].next = uint16(i + 1)
	}
	q.chains[size-1].next = noDesc
	return q, nil
}

// MaxSegments returns how many physically contiguous pieces a chain may have.
func (q *Queue) MaxSegments() int {
	if q.indirect != nil {
		// A chain must not be longer than the queue (section 2.7.5.3.1).
		return min(int(q.size), q.indirect.PageSize()/descSize)
	}
	return int(q.size) / 2 // leave room for a second chain
}

// InFlight returns the number of chains that the device has not used yet.
func (q *Queue) InFlight() int { return q.inFlight }

// Add makes a chain of buffers available: the device reads those of out and writes those of in. The
// device owns the buffers until Used returns the token. It is not notified before Kick. If there is
// no room the error wraps [ErrQueueFull].
func (q *Queue) Add(token int, out, in []dma.Slice) error {
	q.segments = q.segments[:0]
	for _, s := range out {
		q.segments = s.AppendSegments(q.segments)
	}
	readable := len(q.segments)
	var writable uint32
	for _, s := range in {
		q.segments = s.AppendSegments(q.segments)
		writable += uint32(s.Len())
	}
	n := len(q.segments)
	if n == 0 || n > q.MaxSegments() {
		return fmt.Errorf("add chain: %d segments, between 1 and %d are possible",
			n, q.MaxSegments())
	}
	need := n
	useTable := q.indirect != nil && n > 1
	if useTable {
		need = 1
	}
	if need > q.freeLen {
		return ErrQueueFull
	}

	head := q.free
	if useTable {
		table := q.indirect.Page(int(head))
		for i, s := range q.segments {
			putDesc(table.Bytes(), i, s, descFlags(i, readable, n), uint16(i+1))
		}
		whole := dma.Segment{Addr: table.Addr(), Len: uint32(n * descSize)}
		putDesc(q.descMem, int(head), whole, descIndirect, 0)
		q.free = q.chains[head].next
	} else {
		at := head
		for i, s := range q.segments {
			putDesc(q.descMem, int(at), s, descFlags(i, readable, n), q.chains[at].next)
			q.free = q.chains[at].next
			at = q.free
		}
	}
	q.freeLen -= need
	q.inFlight++
	c := &q.chains[head]
	c.length, c.writable, c.token = uint16(need), writable, token

	binary.LittleEndian.PutUint16(q.avail[ringHeader+int(q.availIdx%q.size)*availEntry:], head)
	q.availIdx++
	storeWord(q.avail, q.flags, q.availIdx)
	return nil
}

func descFlags(i, readable, n int) (flags uint16) {
	if i >= readable {
		flags |= descWrite
	}
	if i < n-1 {
		flags |= descNext
	}
	return flags
}

// putDesc writes the i-th descriptor of a table.
func putDesc(table []byte, i int, s dma.Segment, flags, next uint16) {
	p := table[i*descSize : (i+1)*descSize]
	le := binary.LittleEndian
	le.PutUint64(p[0:], s.Addr)
	le.PutUint32(p[8:], s.Len)
	le.PutUint16(p[12:], flags)
	le.PutUint16(p[14:], next)
}

// Kick notifies the device of added chains, unless the device has suppressed that.
func (q *Queue) Kick() {
	if q.kicked == q.availIdx {
		return
	}
	q.kicked = q.availIdx
	// storeWord in Add has ordered avail.idx before this load (section 2.7.13.4.1).
	if flags, _ := loadWord(q.used); flags&noNotify == 0 {
		q.notify()
	}
}

// WantInterrupts sets whether the device should interrupt when it uses chains. The device may
// ignore it. After switching interrupts on, call Used once more, as a chain may have been used
// before.
func (q *Queue) WantInterrupts(want bool) {
	q.flags = noInterrupt
	if want {
		q.flags = 0
	}
	storeWord(q.avail, q.flags, q.availIdx)
}

// Used takes back a chain that the device has used. It returns the chain's token, and how
// many bytes the device wrote. ok is false if there is none. The error wraps [ErrNeedsReset]
// if the device has written an invalid entry.
func (q *Queue) Used() (token int, written uint32, ok bool, err error) {
	_, idx := loadWord(q.used)
	if idx == q.usedIdx {
		return 0, 0, false, nil
	}
	if int(idx-q.usedIdx) > q.inFlight {
		err = fmt.Errorf("read used ring: index %d after %d with %d chains in flight: %w",
			idx, q.usedIdx, q.inFlight, ErrNeedsReset)
		return 0, 0, false, err
	}
	entry := q.used[ringHeader+int(q.usedIdx%q.size)*usedEntry:]
	head := binary.LittleEndian.Uint32(entry)
	written = binary.LittleEndian.Uint32(entry[4:])
	if head >= uint32(q.size) || q.chains[head].length == 0 {
		err = fmt.Errorf("read used ring: descriptor %d is not in flight: %w", head, ErrNeedsReset)
		return 0, 0, false, err
	}
	c := &q.chains[head]
	if written > c.writable {
		err = fmt.Errorf("read used ring: %d bytes written into %d: %w",
			written, c.writable, ErrNeedsReset)
		return 0, 0, false, err
	}
	q.usedIdx++
	q.inFlight--
	q.release(uint16(head))
	return c.token, written, true, nil
}

// release returns a chain's descriptors to the free list.
func (q *Queue) release(head uint16) {
	n := q.chains[head].length
	q.chains[head].length = 0
	last := head
	for range n - 1 {
		last = q.chains[last].next
	}
	q.chains[last].next = q.free
	q.free = head
	q.freeLen += int(n)
}
