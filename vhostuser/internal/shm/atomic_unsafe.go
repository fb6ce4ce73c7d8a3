// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package shm

import (
	"sync/atomic"
	"unsafe"
)

// Rings have 16-bit indices and flags, and neighbours of some of them belong to
// the other side. sync/atomic has no 16-bit operations, so these are a few lines
// of assembly for each architecture, and an architecture without them does not
// build.
//
// Memory order, the same on every architecture (VIRTIO 1.2, 2.7.13 and 2.8.21
// name the barriers; Linux has them in include/linux/virtio_ring.h and
// drivers/virtio/virtio_ring.c):
//
//   - Load16 acquires. What the driver wrote before it published an index or a
//     descriptor's flags is seen by every access after the load.
//   - Store16 releases. The other side that sees the value sees every access
//     before the store, plain ones included.
//   - Fence orders an earlier store with a later load, which neither of the two
//     does. Both sides need it where each writes one thing and then reads what
//     the other wrote: "ask for kicks, then look for buffers" against "add a
//     buffer, then look whether to kick", and "publish a used index, then look
//     whether to interrupt" against "ask for interrupts, then look for used
//     buffers". Without it both could read the old value and sleep for ever.
//
// On amd64 plain 16-bit moves acquire and release (Intel SDM volume 3A, 9.2.2),
// and MFENCE is the fence. On arm64 LDARH, STLRH and DMB ISH are (Arm ARM,
// B2.3). The compiler moves no access across a call of assembly. Accesses are
// aligned, which makes them single-copy atomic on both. The 32-bit operations
// are Go's own, and sequentially consistent.

//go:noescape
func load16(p *uint16) uint16

//go:noescape
func store16(p *uint16, v uint16)

func fence()

func pause()

// Load16 loads the aligned 16-bit value at off, with acquire semantics.
func Load16(b []byte, off int) uint16 {
	_ = b[off+1]
	return load16((*uint16)(unsafe.Pointer(&b[off])))
}

// Store16 stores an aligned 16-bit value at off, with release semantics.
func Store16(b []byte, off int, v uint16) {
	_ = b[off+1]
	store16((*uint16)(unsafe.Pointer(&b[off])), v)
}

// Fence orders all accesses before it with all accesses after it.
func Fence() { fence() }

// Pause tells the processor that it runs in a loop that waits for memory.
func Pause() { pause() }

// Load32 atomically loads the aligned 32-bit value at off.
func Load32(b []byte, off int) uint32 { return atomic.LoadUint32(word(b, off)) }

// Store32 atomically stores an aligned 32-bit value at off.
func Store32(b []byte, off int, v uint32) { atomic.StoreUint32(word(b, off), v) }

// Or32 atomically sets bits in the aligned 32-bit value at off.
func Or32(b []byte, off int, bits uint32) { atomic.OrUint32(word(b, off), bits) }

// Swap32 atomically replaces the aligned 32-bit value at off.
func Swap32(b []byte, off int, v uint32) uint32 { return atomic.SwapUint32(word(b, off), v) }

// Aligned says whether b begins at a multiple of n, a power of two.
func Aligned(b []byte, n uintptr) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))&(n-1) == 0
}

// Addr returns the address of b's first byte, to stand for it in messages.
func Addr(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func word(b []byte, off int) *uint32 {
	_ = b[off+3]
	return (*uint32)(unsafe.Pointer(&b[off]))
}
