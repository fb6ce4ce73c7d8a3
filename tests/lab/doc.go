// SPDX-License-Identifier: Apache-2.0

// Package lab brings together what a migration between two QEMU processes
// needs: the patched QEMU, fbppd, kernels and an initramfs with the agent. The
// end-to-end tests and the demo share it.
//
// What is part of this module is built on the way; QEMU takes minutes, and so
// is built by "make qemu-build" only, or by the caller. A part that is missing
// is an error that names it.
package lab
