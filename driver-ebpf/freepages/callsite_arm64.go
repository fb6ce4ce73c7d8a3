// SPDX-License-Identifier: Apache-2.0

package freepages

import "encoding/binary"

// A64 instructions that the scan knows, and the mask of the bits that tell each apart.
const (
	opBL, maskBL     = 0x94000000, 0xfc000000 // bl imm26
	opADRP, maskADRP = 0x90000000, 0x9f000000 // adrp xd, page
	opADD, maskADD   = 0x91000000, 0xffc00000 // add xd, xn, #imm12

	opBreakpoint = 0xd4200080 // brk #4: another kprobe, in the call's place
)

const (
	instructionSize = 4
	loadWithin      = 32 // instructions before the call where the format's address is made
)

// findCall looks in the machine code of a function at address base for a call of callee shortly
// after the code that makes a constant address which wanted accepts. It returns the call's
// offset in text.
//
// It follows no registers from there to the call: the address may lie on the stack in between,
// as in zoneinfo_show of Linux 7.3. So the first call of callee after the address is made is
// taken, or another kprobe. The program compares the format when it runs, and the trial read
// finds a hook that is none.
func findCall(text []byte, base, callee uint64, wanted func(addr uint64) bool) (
	offset int, ok bool,
) {
	var pages [32]uint64 // what adrp put into each register, 0 for nothing
	made := -1           // index of the instruction that made the wanted address
	for i := range len(text) / instructionSize {
		op := binary.LittleEndian.Uint32(text[i*instructionSize:])
		pc := base + uint64(i)*instructionSize
		switch {
		case op&maskADRP == opADRP:
			pages[op&31] = pc&^0xfff + adrpDistance(op)
		case op&maskADD == opADD && pages[op>>5&31] != 0:
			if wanted(pages[op>>5&31] + uint64(op>>10&0xfff)) {
				made = i
			}
		case op == opBreakpoint, op&maskBL == opBL && pc+blDistance(op) == callee:
			if made >= 0 && i-made <= loadWithin {
				return i * instructionSize, true
			}
		}
	}
	return 0, false
}

// adrpDistance returns how far the page that an adrp names is from its own.
func adrpDistance(op uint32) uint64 {
	imm := op>>5&0x7ffff<<2 | op>>29&3
	return uint64(int64(int32(imm<<11)>>11) << 12)
}

// blDistance returns how far the function that a bl calls is from the instruction.
func blDistance(op uint32) uint64 { return uint64(int64(int32(op<<6) >> 4)) }
