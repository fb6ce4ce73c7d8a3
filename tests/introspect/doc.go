// SPDX-License-Identifier: Apache-2.0

// Package introspect tests package device/introspect on real guests: it pauses
// one, looks at its memory from outside, and compares with what the guest's
// kernel said of its own pages just before.
//
// Nothing but Debian's QEMU and Debian's kernels is needed.
package introspect
