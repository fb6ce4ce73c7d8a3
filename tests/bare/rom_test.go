// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"os"
	"path/filepath"
	"testing"
)

// romSize is the size of the firmware, which ends at 4 GiB.
const romSize = 64 << 10

// order is the address from which the program of writeROM takes its orders.
const order = 0x500

// writeROM writes a ROM image that runs instead of the firmware, and returns its path.
// The program waits for a segment number at address order, adds one to the first word
// of that segment, clears order, and waits again.
func writeROM(t testing.TB) string {
	t.Helper()
	rom := make([]byte, romSize)
	copy(rom, []byte{
		0x31, 0xc0, //                         xor ax, ax
		0x8e, 0xd8, //                         mov ds, ax
		0xa1, 0x00, 0x05, //             wait: mov ax, [0x500]
		0x85, 0xc0, //                         test ax, ax
		0x74, 0xf9, //                         jz wait
		0x8e, 0xc0, //                         mov es, ax
		0x26, 0xff, 0x06, 0x00, 0x00, //       inc word es:[0]
		0xc7, 0x06, 0x00, 0x05, 0x00, 0x00, // mov word [0x500], 0
		0xeb, 0xea, //                         jmp wait
	})
	return saveROM(t, rom)
}

// saveROM writes a program that begins where the image does, and returns the path.
func saveROM(t testing.TB, rom []byte) string {
	t.Helper()
	copy(rom[romSize-16:], []byte{0xe9, 0x0d, 0x00}) // reset: jmp to the beginning
	path := filepath.Join(t.TempDir(), "rom.bin")
	if err := os.WriteFile(path, rom, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// touch has the processor write to the page at addr, below 1 MiB, and returns when it
// has. Without an accelerator no processor runs, and the test writes over qtest.
func (m *machine) touch(addr uint64) {
	m.t.Helper()
	if m.Config.Accel == "qtest" {
		m.do("writew %#x %#x", addr, m.number("readw %#x", addr)+1)
		return
	}
	m.do("writew %#x %#x", order, addr>>4)
	m.await("the processor writes", func() bool { return m.number("readw %#x", order) == 0 })
}
