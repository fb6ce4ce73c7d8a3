// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"encoding/binary"
	"encoding/hex"
	"testing"
)

// captured has the code of functions that print zones from Debian kernels: of frag_show, read
// in guests without KASLR, if nothing else is said.
var captured = map[string]struct {
	text         string
	base, callee uint64
	format       uint64 // address of the string "Node %d, zone %8s ", without the blank in zoneinfo
	want         int
}{
	"6.1.176-1": {
		text: "0f1f4400004157415641554989f541544989fc55488dae18050000534883bd80fbffff0074664c8d" +
			"7db8488d9d38fcffff4c89ffe817247700488b8d90fbffff418b95409e02004c89e748c7c6aa8130" +
			"824989c6e857fd0d00488b1348c7c6868230824c89e74883c358e841fd0d004839eb75e5be0a0000" +
			"004c89e7e85ff10d004c89f64c89ffe854247700488d85e80000004881c5000600004c29e8483d00" +
			"1800000f8e73ffffff5b31c05d415c415d415e415fc3cccccccc660f1f440000",
		base: 0xffffffff8129c1d0, callee: 0xffffffff8137bf80,
		format: 0xffffffff823081aa, want: 0x54,
	},
	"6.12.95-1~bpo12+1": {
		text: "f30f1efa0f1f4400004157415641554989f541544989fc55488dae18050000534883bd90fbffff00" +
			"74664c8d7dc8488d9d38fcffff4c89ffe833a89300488b8da0fbffff418b95409e02004c89e748c7" +
			"c613b847824989c6e8f3231200488b1348c7c6efb847824c89e74883c358e8dd2312004839eb75e5" +
			"be0a0000004c89e7e8ab1512004c89f64c89ffe8a0a89300488d85e80000004881c5000600004c29" +
			"e8483d001800000f8e73ffffff5b31c05d415c415d415e415fc3cccccccc6690",
		base: 0xffffffff813575b0, callee: 0xffffffff81479a00,
		format: 0xffffffff8247b813, want: 0x58,
	},
	// The beginning of zoneinfo_show, from the kernel's image.
	"7.3.4-1~bpo13+1": {
		text: "f30f1efae897d0c8ff4157488d86a8000000415641554989f54154554889f5534889fb4883ec2848" +
			"89442420488d85b00500004531ff4889c748890424e8ae0aad00418b9580a40200488b8dc0000000" +
			"4889df48c7c661088e824889442408e83c341600488b5424204d63e74983fc060f83a80300004883" +
			"3a000f85980200004183c7014881c2400700004183ff0575d8488b8598000000488b4d2031f64889",
		base: 0xffffffff81694460, callee: 0xffffffff817f7900,
		format: 0xffffffff828e0861, want: 0x5f,
	},
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCallIsFoundInCapturedKernels(t *testing.T) {
	for kernel, c := range captured {
		t.Run(kernel, func(t *testing.T) {
			text := mustHex(t, c.text)
			is := func(addr uint64) bool { return addr == c.format }
			if got, ok := findCall(text, c.base, c.callee, is); !ok || got != c.want {
				t.Fatalf("call at %#x, %v; want %#x", got, ok, c.want)
			}
			text[c.want] = opBreakpoint
			if got, ok := findCall(text, c.base, c.callee, is); !ok || got != c.want {
				t.Fatalf("with another probe in place: call at %#x, %v; want %#x", got, ok, c.want)
			}
			text[c.want] = 0x90
			if got, ok := findCall(text, c.base, c.callee, is); ok {
				t.Fatalf("without the call: found at %#x", got)
			}
		})
	}
}

func TestOtherCallsAreNotTakenForThePrint(t *testing.T) {
	c := captured["6.1.176-1"]
	text := mustHex(t, c.text)
	for name, find := range map[string]func() (int, bool){
		"another format": func() (int, bool) {
			return findCall(text, c.base, c.callee, func(uint64) bool { return false })
		},
		"another function": func() (int, bool) {
			return findCall(text, c.base, c.callee+1, func(uint64) bool { return true })
		},
		"a function that is cut off in the call": func() (int, bool) {
			return findCall(text[:c.want+4], c.base, c.callee, func(uint64) bool { return true })
		},
		"nothing": func() (int, bool) {
			return findCall(nil, c.base, c.callee, func(uint64) bool { return true })
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := find(); ok {
				t.Fatalf("found at %#x", got)
			}
		})
	}
}

func TestFormatMayBeLoadedRelativeToTheInstruction(t *testing.T) {
	const base, format, callee = 0x1000, 0x8000, 0x4000
	text := append([]byte{0x90}, opLeaRSI[:]...)
	text = binary.LittleEndian.AppendUint32(text, uint32(format-(base+1+loadSize)))
	text = append(text, opCall)
	text = binary.LittleEndian.AppendUint32(text, uint32(callee-(base+1+loadSize+callSize)))
	got, ok := findCall(text, base, callee, func(addr uint64) bool { return addr == format })
	if !ok || got != 1+loadSize {
		t.Fatalf("call at %d, %v", got, ok)
	}
}

func FuzzFindCall(f *testing.F) {
	for _, c := range captured {
		text, err := hex.DecodeString(c.text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, c.base, c.callee)
	}
	f.Fuzz(func(t *testing.T, text []byte, base, callee uint64) {
		offset, ok := findCall(text, base, callee, func(uint64) bool { return true })
		if !ok {
			return
		}
		if offset < loadSize || offset+callSize > len(text) {
			t.Fatalf("call at %d of %d", offset, len(text))
		}
		if got := base + uint64(offset) + callSize + rel32(text[offset+1:]); got != callee {
			t.Fatalf("call at %d goes to %#x, want %#x", offset, got, callee)
		}
	})
}
