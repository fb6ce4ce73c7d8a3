// SPDX-License-Identifier: Apache-2.0

package vm

// Target is the guest's architecture, as in the name of QEMU's binary.
type Target string

// X86_64 is the only target that there are guests for.
const X86_64 Target = "x86_64"

// Known tells whether the package can run guests of the target.
func (t Target) Known() bool { return t.machine() != "" }

// machine returns a machine type with PCI Express, as in QEMU's option -machine, or ""
// if there are no guests for the target.
func (t Target) machine() string {
	switch t {
	case X86_64, "":
		return "q35"
	}
	return ""
}
