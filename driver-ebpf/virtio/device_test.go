// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"bytes"
	"testing"
)

// A configuration space that is shorter than what the driver knows is read to its
// end, and no further [FBPP-CFG-3].
func TestReadConfigEndsWithTheSpace(t *testing.T) {
	for _, length := range []int{0, 1, 4, 7, 8, 32, 64} {
		space := bytes.Repeat([]byte{0xcc}, 128)
		for i := range length {
			space[i] = byte(i + 1)
		}
		// A read outside panics, as registers are a slice that ends there.
		config := registers(space[:length:length])
		d := &Device{common: make(registers, commonConfigSize), config: config}
		got := bytes.Repeat([]byte{0xff}, 32)
		n := d.ReadConfig(got)
		if want := min(length, len(got)); n != want {
			t.Fatalf("%d of %d bytes were read, want %d", n, length, want)
		}
		rest := bytes.Repeat([]byte{0xff}, 32-n)
		if !bytes.Equal(got[:n], space[:n]) || !bytes.Equal(got[n:], rest) {
			t.Fatalf("of %d bytes, % x were read", length, got)
		}
	}
}
