// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"encoding/binary"
	"slices"
	"testing"
)

// capturedCode is the code around the first print of a zone in Debian's arm64 kernels, from
// their images. Addresses are offsets in the image.
type capturedCode struct {
	base, callee uint64
	format       uint64 // address of the string "Node %d, zone %8s ", without the blank in zoneinfo
	want         int
	text         []uint32
}

var captured = map[string]capturedCode{
	// frag_show_print: the page and the offset of the address are in two registers.
	"6.1.176-1": {0x2e14a0, 0x3da740, 0xe2f508, 0x38, []uint32{
		0xa9bd7bfd, 0xd0005a63, 0x910003fd, 0xa90153f3, 0xaa0203f4, 0x91058053, 0xa9025bf5,
		0xd0005a76, 0xaa0003f5, 0xb9634022, 0x91142061, 0xf9405683, 0x911482d6, 0x91176294,
		0x9403e49a, 0xd503201f, 0xf8468662, 0xaa1603e1, 0xaa1503e0, 0x9403e495, 0xeb14027f,
	}},
	// zoneinfo_show: a lock is taken, and the address is on the stack, before the print.
	"7.3.4-1~bpo13+1": {0x455ee0, 0x5d6ed0, 0x18d2150, 0x48, []uint32{
		0x91098000, 0xf90047e1, 0xb000a3e1, 0x91054021, 0xa90b83e1, 0xd503201f, 0xd503201f,
		0xd503201f, 0x91160280, 0xf9004be0, 0x94327cd8, 0xf94047e1, 0xf9004fe0, 0xf9406283,
		0xaa1303e0, 0xb96c0022, 0x52800015, 0xf9405fe1, 0x940603ea, 0xf9405bf7, 0x93407ea1,
	}},
}

// find is findCall for the captured code with some other instructions.
func (c *capturedCode) find(text []uint32) (int, bool) {
	var code []byte
	for _, op := range text {
		code = binary.LittleEndian.AppendUint32(code, op)
	}
	return findCall(code, c.base, c.callee, func(addr uint64) bool { return addr == c.format })
}

func TestCallIsFoundInCapturedKernels(t *testing.T) {
	const nop = 0xd503201f
	for kernel, c := range captured {
		t.Run(kernel, func(t *testing.T) {
			if got, ok := c.find(c.text); !ok || got != c.want {
				t.Fatalf("call at %#x, %v; want %#x", got, ok, c.want)
			}
			call := c.want / instructionSize
			text := slices.Clone(c.text[:call+1])
			text[call] = opBreakpoint
			if got, ok := c.find(text); !ok || got != c.want {
				t.Fatalf("with another probe in place: call at %#x, %v; want %#x", got, ok, c.want)
			}
			text[call] = nop
			if got, ok := c.find(text); ok {
				t.Fatalf("without the call: found at %#x", got)
			}
		})
	}
}

func TestOtherCallsAreNotTakenForThePrint(t *testing.T) {
	c := captured["6.1.176-1"]
	other := c
	other.format++
	if got, ok := other.find(c.text); ok {
		t.Errorf("another format: found at %#x", got)
	}
	other = c
	other.callee += instructionSize
	if got, ok := other.find(c.text); ok {
		t.Errorf("another function: found at %#x", got)
	}
	if got, ok := c.find(c.text[:c.want/instructionSize]); ok {
		t.Errorf("a function that is cut off before the call: found at %#x", got)
	}
	if got, ok := c.find(nil); ok {
		t.Errorf("nothing: found at %#x", got)
	}
	far := slices.Concat(c.text[:11], make([]uint32, loadWithin), c.text[14:])
	if got, ok := c.find(far); ok {
		t.Errorf("a call that is far from the address: found at %#x", got)
	}
}

func TestDistancesAreSigned(t *testing.T) {
	if got := blDistance(opBL | 0x3ffffff); got != ^uint64(3) {
		t.Errorf("the call of the instruction before is %#x away", got)
	}
	if got := adrpDistance(opADRP | 3<<29 | 0x7ffff<<5); got != ^uint64(0xfff) {
		t.Errorf("the page before is %#x away", got)
	}
}

func FuzzFindCall(f *testing.F) {
	f.Add([]byte{0x9a, 0xe4, 0x03, 0x94}, uint64(0x2e14d8), uint64(0x3da740))
	f.Fuzz(func(t *testing.T, text []byte, base, callee uint64) {
		offset, ok := findCall(text, base, callee, func(uint64) bool { return true })
		if ok && (offset < 0 || offset+instructionSize > len(text)) {
			t.Fatalf("call at %d of %d bytes", offset, len(text))
		}
	})
}
