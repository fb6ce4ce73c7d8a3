// SPDX-License-Identifier: Apache-2.0

package dma

import "unsafe"

// address returns the address of mem, to look it up in the page map. It must not be turned
// into a pointer again.
func address(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }
