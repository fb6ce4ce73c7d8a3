// SPDX-License-Identifier: Apache-2.0

// Package stock tests the example backends of vhostuser with Debian's unmodified QEMU,
// kernels and programs. It has only tests.
package stock
