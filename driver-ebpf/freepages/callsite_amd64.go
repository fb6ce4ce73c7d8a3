// SPDX-License-Identifier: Apache-2.0

package freepages

import "encoding/binary"

// x86-64 instructions that the scan knows, by their first bytes.
const (
	opCall       = 0xe8 // call rel32
	opBreakpoint = 0xcc // int3: another kprobe's first byte of the call
	callSize     = 5
)

var (
	opMovRSI = [3]byte{0x48, 0xc7, 0xc6} // mov $imm32, %rsi, sign-extended
	opLeaRSI = [3]byte{0x48, 0x8d, 0x35} // lea rel32(%rip), %rsi
)

const (
	loadSize   = 7  // of both instructions that load %rsi
	loadWithin = 40 // bytes before the call where the second argument is loaded
)

// findCall looks in the machine code of a function at address base for a call of callee whose
// second argument is a constant address that wanted accepts. It returns the call's offset in
// text.
//
// It does not decode instructions. A match needs the opcode of a call, the exact distance to
// callee, and before it the load of an address that wanted accepts.
func findCall(text []byte, base, callee uint64, wanted func(addr uint64) bool) (
	offset int, ok bool,
) {
	for i := 0; i+callSize <= len(text); i++ {
		if text[i] != opCall && text[i] != opBreakpoint {
			continue
		}
		if base+uint64(i)+callSize+rel32(text[i+1:]) != callee {
			continue
		}
		for j := i - loadSize; j >= 0 && j >= i-loadWithin; j-- {
			if addr, ok := loadedRSI(text[j:], base+uint64(j)); ok {
				if wanted(addr) {
					return i, true
				}
				break // the nearest load is the one that counts
			}
		}
	}
	return 0, false
}

// loadedRSI returns the constant that the instruction at the beginning of text,
// which lies at addr, loads into %rsi.
func loadedRSI(text []byte, addr uint64) (value uint64, ok bool) {
	if len(text) < loadSize {
		return 0, false
	}
	switch [3]byte(text[:3]) {
	case opMovRSI:
		return rel32(text[3:]), true
	case opLeaRSI:
		return addr + loadSize + rel32(text[3:]), true
	}
	return 0, false
}

// rel32 reads a 32-bit displacement, extended to 64 bits with its sign.
func rel32(p []byte) uint64 { return uint64(int64(int32(binary.LittleEndian.Uint32(p)))) }
