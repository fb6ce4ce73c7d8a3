// SPDX-License-Identifier: Apache-2.0

// Package e2e holds no code but tests: real QEMU processes, real Debian kernels
// in their guests, and live migrations between them.
//
// The tests need root, Debian's tools and the patched QEMU of "make qemu-build".
// A part that is missing fails the whole package with one line that names it.
//
// Most tests end in [machine.requireSound]: a program in the guest owned
// checksummed memory, kept allocating, writing and freeing it during the
// migration, and finds every byte in its place on the destination.
package e2e
