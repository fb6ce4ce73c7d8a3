// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// Where the program of readerROM keeps its figures.
const (
	readCount = 0x504 // how often it has read
	readWant  = 0x508 // the value of the first time
	readBad   = 0x50c // another value
	readEnded = 0x510 // not 0 when it has read that, and stopped
)

// readerROM writes a ROM image that runs instead of the firmware, and returns its path. The
// program reads one register over and over: the first of the HPET, which never changes. It waits
// for a while between, a little longer each time.
func readerROM(t testing.TB) string {
	t.Helper()
	const table = 0x80
	rom := make([]byte, romSize)
	copy(rom, []byte{
		0x2e, 0x66, 0x0f, 0x01, 0x16, table, 0x00, // lgdtl cs:[table]
		0x0f, 0x20, 0xc0, //                       mov eax, cr0
		0x0c, 0x01, //                             or al, 1
		0x0f, 0x22, 0xc0, //                       mov cr0, eax
		0xb9, 0x08, 0x00, //                       mov cx, 8
		0x8e, 0xd9, //                             mov ds, cx: it reaches all 4 GiB, also after this
		0x24, 0xfe, //                             and al, 0xfe
		0x0f, 0x22, 0xc0, //                       mov cr0, eax
		0x66, 0x67, 0xa1, 0x00, 0x00, 0xd0, 0xfe, // mov eax, [0xfed00000]
		0x66, 0x89, 0xc3, //                       mov ebx, eax
		0x66, 0xa3, 0x08, 0x05, //                 mov [readWant], eax
		0x66, 0x67, 0xa1, 0x00, 0x00, 0xd0, 0xfe, // again: mov eax, [0xfed00000]
		0x66, 0x39, 0xd8, //                       cmp eax, ebx
		0x75, 0x13, //                             jne bad
		0x66, 0xff, 0x06, 0x04, 0x05, //           inc dword [readCount]
		0x8b, 0x0e, 0x04, 0x05, //                 mov cx, [readCount]
		0x81, 0xe1, 0xff, 0x03, //                 and cx, 0x3ff
		0xe3, 0xe5, //                             jcxz again
		0xe2, 0xfe, //                             loop itself
		0xeb, 0xe1, //                             jmp again
		0x66, 0xa3, 0x0c, 0x05, //                 bad: mov [readBad], eax
		0xff, 0x06, 0x10, 0x05, //                 inc word [readEnded]
		0xf4, 0xeb, 0xfd, //                       hlt, for ever
	})
	binary.LittleEndian.PutUint16(rom[table:], 0x0f)
	binary.LittleEndian.PutUint32(rom[table+2:], 0xffff0000+table+8)
	binary.LittleEndian.PutUint64(rom[table+16:], 0x00cf93000000ffff)
	return saveROM(t, rom)
}

// Devices come and go while a processor uses another one. With TCG it knew the other one by a
// number, which is another device's once the map has changed, or nobody's: that ended QEMU.
func TestProcessorReadsOneDeviceWhileOthersComeAndGo(t *testing.T) {
	const (
		devices = 24 // each makes a change of the map take longer
		bar     = 0xe0000000
		changes = 1500
	)
	c := config("")
	c.Accel, c.Firmware = vm.TCG, readerROM(t)
	for i := range devices {
		c.Devices = append(c.Devices, fmt.Sprintf("pci-testdev,addr=%#x", i+2))
	}
	m := start(t, c)
	m.await("the processor reads", func() bool { return m.number("readl %#x", readCount) > 0 })
	const pciAddress, pciData = 0xcf8, 0xcfc
	configure := func(register uint32, write string, value uint32) {
		m.do("outl %#x %#x", pciAddress, 1<<31|2<<11|register)
		m.do("%s %#x %#x", write, pciData, value)
	}
	configure(0x10, "outl", bar)
	if got := m.number("inl %#x", pciData) &^ 0xf; got != bar {
		t.Fatalf("the other device is at %#x, not %#x", got, bar)
	}
	configure(4, "outw", 2)
	if got := m.number("inw %#x", pciData); got&2 == 0 {
		t.Fatalf("the other device does not answer: its command register is %#x", got)
	}
	for i := range uint32(changes) {
		configure(4, "outw", i%2*2) // the command register: answer to memory, or not
		if m.number("readw %#x", readEnded) != 0 {
			t.Fatalf("after %d changes the processor read %#x, and %#x before", i,
				m.number("readl %#x", readBad), m.number("readl %#x", readWant))
		}
	}
	const capabilities = 0x8086a201 // of QEMU's HPET
	if got := m.number("readl %#x", readWant); got != capabilities {
		t.Errorf("the processor has read %#x, not %#x", got, capabilities)
	}
	before := m.number("readl %#x", readCount)
	m.await("the processor goes on", func() bool { return m.number("readl %#x", readCount) > before })
	m.requireRuns()
}
