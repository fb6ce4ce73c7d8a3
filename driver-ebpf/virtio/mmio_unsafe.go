// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"runtime/debug"
	"sync/atomic"
	"unsafe"
)

// Implemented in mmio_GOARCH.s.
func load8(p unsafe.Pointer) uint8
func load16(p unsafe.Pointer) uint16
func load32(p unsafe.Pointer) uint32
func store8(p unsafe.Pointer, v uint8)
func store16(p unsafe.Pointer, v uint16)
func store32(p unsafe.Pointer, v uint32)

// registers is a mapped structure of the device. An offset outside of it panics, as with a slice.
// An unplugged device reads as all ones.
type registers []byte

func (r registers) read8(off int) uint8       { return access(load8, r.at(off, 1), 0xff) }
func (r registers) read16(off int) uint16     { return access(load16, r.at(off, 2), 0xffff) }
func (r registers) read32(off int) uint32     { return access(load32, r.at(off, 4), 0xffff_ffff) }
func (r registers) write8(off int, v uint8)   { access(storing(store8, v), r.at(off, 1), 0) }
func (r registers) write16(off int, v uint16) { access(storing(store16, v), r.at(off, 2), 0) }
func (r registers) write32(off int, v uint32) { access(storing(store32, v), r.at(off, 4), 0) }

// access calls do on a register, and returns its result, or gone if the register is not mapped any
// more. When a device is unplugged the kernel may remove its mappings (fs/kernfs/file.c), and an
// access raises SIGBUS.
func access[T any](do func(unsafe.Pointer) T, p unsafe.Pointer, gone T) (v T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch err := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // of a fault: see debug.SetPanicOnFault
			v = gone
		default:
			panic(err)
		}
	}()
	return do(p)
}

// storing wraps a store as a function for access.
func storing[T any](store func(unsafe.Pointer, T), v T) func(unsafe.Pointer) T {
	return func(p unsafe.Pointer) T {
		store(p, v)
		return v
	}
}

// write64 writes a 64-bit register as two halves, which section 4.1.3.1 allows.
func (r registers) write64(off int, v uint64) {
	r.write32(off, uint32(v))
	r.write32(off+4, uint32(v>>32))
}

func (r registers) at(off, size int) unsafe.Pointer {
	_ = r[off+size-1]
	return unsafe.Pointer(&r[off])
}

// loadWord and storeWord access the aligned 32-bit word at the beginning of a ring: flags in its
// low half, idx in its high half. sync/atomic has no functions for 16 bits. One side writes the
// whole word of a ring, so it can publish its 16-bit index with the word. Both functions order all
// accesses around them.
func loadWord(ring []byte) (flags, idx uint16) {
	word := atomic.LoadUint32((*uint32)(unsafe.Pointer(&ring[:4][0])))
	return uint16(word), uint16(word >> 16)
}

func storeWord(ring []byte, flags, idx uint16) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&ring[:4][0])), uint32(idx)<<16|uint32(flags))
}
