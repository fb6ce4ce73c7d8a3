// SPDX-License-Identifier: Apache-2.0

package vm

import "github.com/fbpp-project/fbpp/tests/guest"

// machine returns a machine type with PCI Express and two serial ports, as in QEMU's option
// -machine.
func machine(target guest.Arch) string {
	if target == guest.AArch64 {
		return "virt,gic-version=3"
	}
	return "q35"
}

// console returns the guest's name of the first serial port.
func console(target guest.Arch) string {
	if target == guest.AArch64 {
		return "ttyAMA0"
	}
	return "ttyS0"
}
