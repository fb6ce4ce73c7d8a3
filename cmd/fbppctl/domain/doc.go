// SPDX-License-Identifier: Apache-2.0

// Package domain edits libvirt's definition of a virtual machine, so that QEMU has the
// fbpp device: shared memory, and the device's options behind libvirt's own.
//
// A definition that this package cannot keep as a whole is not edited. [Parse] compares
// what it has read with the text, and refuses the text where something would be lost.
package domain
