// SPDX-License-Identifier: Apache-2.0

package dma

import "unsafe"

// address returns where mem lies, for use as an index into pagemap only.
func address(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }
