// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"os"
)

// Arch is the architecture of guests, as in the name of QEMU's binary.
type Arch string

// The architectures that there are guests of.
const (
	X86_64  Arch = "x86_64"
	AArch64 Arch = "aarch64"
)

// archVariable is the environment variable that names the guests' architecture. make sets it
// from TARGET, and qemu.sh reads it as well.
const archVariable = "FBPP_TARGET"

// Target returns the architecture of the guests that the environment asks for, which is
// x86-64 unless it says otherwise.
func Target() (Arch, error) {
	switch a := Arch(os.Getenv(archVariable)); a {
	case "":
		return X86_64, nil
	case X86_64, AArch64:
		return a, nil
	default:
		return "", fmt.Errorf("%s is %q, and there are no guests for that", archVariable, a)
	}
}

// Debian returns Debian's name of the architecture, which is Go's as well.
func (a Arch) Debian() string {
	if a == AArch64 {
		return "arm64"
	}
	return "amd64"
}

// libraryDir is the first place where Debian's dynamic linker looks.
func (a Arch) libraryDir() string { return "lib/" + string(a) + "-linux-gnu/" }

// folder returns the path elements below which the caches keep what is of the architecture.
// There are none for x86-64.
func (a Arch) folder() string {
	if a == X86_64 {
		return ""
	}
	return string(a)
}
