// SPDX-License-Identifier: Apache-2.0

package shm

import (
	"sync/atomic"
	"unsafe"
)

// sync/atomic has no 16-bit operations, and the rings have 16-bit indices. A
// 16-bit field is therefore read as part of the aligned 32-bit word around it:
// such a word never crosses a page, so it is mapped if the field is. A 16-bit
// field cannot be written that way without touching its neighbour; the backend
// never needs to, since used.flags and used.idx share a word that it owns
// alone, and the driver likewise owns avail.flags and avail.idx (VIRTIO 1.2,
// 2.7.6 and 2.7.8).
//
// Go's atomics are sequentially consistent, on arm64 too: what the driver wrote
// before it published an index is seen after loading the index, and what we
// wrote is seen before the index that we store.

// Load16 atomically loads the 16-bit value at off, which is even in memory.
func Load16(b []byte, off int) uint16 {
	_ = b[off+1]
	p := unsafe.Pointer(&b[off])
	misaligned := uintptr(p) & 2
	w := atomic.LoadUint32((*uint32)(unsafe.Add(p, -int(misaligned))))
	return uint16(w >> (8 * misaligned))
}

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
