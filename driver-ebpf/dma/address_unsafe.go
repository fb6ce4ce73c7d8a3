// SPDX-License-Identifier: Apache-2.0

package dma

import "unsafe"

// address returns where mem lies: to look it up, and never to make a pointer of.
func address(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }
