// SPDX-License-Identifier: Apache-2.0

package window

import (
	"sync/atomic"
	"unsafe"
)

// Offsets are multiples of the access size by construction (protocol's window.go),
// and the mapping is page aligned.

func (w *Window) word32(off int) *uint32 {
	return (*uint32)(unsafe.Pointer(&w.mem[off : off+4][0]))
}

func (w *Window) word64(off int) *uint64 {
	return (*uint64)(unsafe.Pointer(&w.mem[off : off+8][0]))
}

func (w *Window) load32(off int) uint32     { return atomic.LoadUint32(w.word32(off)) }
func (w *Window) load64(off int) uint64     { return atomic.LoadUint64(w.word64(off)) }
func (w *Window) store32(off int, v uint32) { atomic.StoreUint32(w.word32(off), v) }
func (w *Window) store64(off int, v uint64) { atomic.StoreUint64(w.word64(off), v) }
