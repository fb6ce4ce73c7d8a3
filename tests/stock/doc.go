// SPDX-License-Identifier: Apache-2.0

// Package stock tests the example backends of vhostuser with what everybody
// has: Debian's own QEMU, an unmodified Debian kernel with its drivers, and
// Debian's programs in the guest. It has no code but tests.
package stock
