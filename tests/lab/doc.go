// SPDX-License-Identifier: Apache-2.0

// Package lab provides what a migration between two QEMU processes needs: the patched
// QEMU, fbppd, kernels, and an initramfs with the agent. The end-to-end tests, the
// benchmark and the demo share it.
//
// Package lab builds the programs of this module. It does not build QEMU, which takes
// minutes: "make qemu-build" does. If a part is missing, the error names it.
package lab
