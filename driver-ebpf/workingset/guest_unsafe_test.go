// SPDX-License-Identifier: Apache-2.0

//go:build guest

package workingset

import "unsafe"

// addressOf returns where memory begins.
func addressOf(mem []byte) int64 { return int64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) }
