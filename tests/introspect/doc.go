// SPDX-License-Identifier: Apache-2.0

// Package introspect tests package device/introspect on real guests. It pauses a guest,
// reads its memory from the host, and compares the result with what the guest's kernel said
// about its pages just before.
//
// It needs only Debian's QEMU and kernels.
package introspect
