// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Each access has the width of its register. No byte beside the register is written or
// read.
func TestRegistersAreAccessedWithTheirOwnWidth(t *testing.T) {
	const beside = 0xee
	for name, c := range map[string]struct {
		width int
		write func(registers)
		read  func(registers) uint64
	}{
		"8 bits": {1, func(r registers) { r.write8(8, 0x81) },
			func(r registers) uint64 { return uint64(r.read8(8)) }},
		"16 bits": {2, func(r registers) { r.write16(8, 0x8281) },
			func(r registers) uint64 { return uint64(r.read16(8)) }},
		"32 bits": {4, func(r registers) { r.write32(8, 0x84838281) },
			func(r registers) uint64 { return uint64(r.read32(8)) }},
		"64 bits, as two halves": {8, func(r registers) { r.write64(8, 0x8887868584838281) },
			func(r registers) uint64 { return uint64(r.read32(12))<<32 | uint64(r.read32(8)) }},
	} {
		t.Run(name, func(t *testing.T) {
			memory := bytes.Repeat([]byte{beside}, 24)
			c.write(memory)
			want := bytes.Repeat([]byte{beside}, 24)
			var value uint64
			for i := range c.width {
				want[8+i] = byte(0x81 + i)
				value |= uint64(want[8+i]) << (8 * i)
			}
			if !bytes.Equal(memory, want) {
				t.Errorf("memory holds %x, want %x", memory, want)
			}
			if got := c.read(memory); got != value {
				t.Errorf("read %#x, want %#x", got, value)
			}
		})
	}
}

// When a device is unplugged its mapping becomes invalid. The agent must survive the next
// access.
func TestRegistersOfADeviceThatIsGone(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "bar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	bar, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(bar); err != nil {
			t.Error(err)
		}
	}()
	d := newWaiter(t)
	d.common = registers(bar[:commonConfigSize])
	d.Start()
	if err := d.Healthy(); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := d.Healthy(); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want ErrGone", err)
	}
	d.common.write8(0, 1)
	d.common.write16(0, 1)
	d.common.write64(0, 1)
	if a, b := d.common.read16(0), d.common.read32(0); a != 0xffff || b != 0xffff_ffff {
		t.Errorf("read %#x and %#x", a, b)
	}
}

func TestAccessPastTheRegistersPanics(t *testing.T) {
	for name, access := range map[string]func(registers){
		"read32":  func(r registers) { r.read32(6) },
		"write16": func(r registers) { r.write16(7, 0) },
		"read8":   func(r registers) { r.read8(8) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic past the end")
				}
			}()
			access(make(registers, 8))
		})
	}
}
