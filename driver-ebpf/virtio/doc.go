// SPDX-License-Identifier: Apache-2.0

// Package virtio drives a virtio device over PCI from user space.
//
// uio_pci_generic makes the device's interrupt line (INTx) a readable file. Registers are accessed
// through the BARs that root can map from sysfs. Rings are in memory of package dma. The package
// supports VIRTIO 1.x devices of any type, with split virtqueues of at most 256 descriptors: so
// each part of a ring fits in one page.
//
// Section numbers in comments are those of the Virtual I/O Device standard,
// version 1.2.
package virtio

import "errors"

// Errors that callers tell apart.
var (
	// ErrOtherDevice says that the device at a PCI address has another identity.
	ErrOtherDevice = errors.New("another device is there")
	// ErrGone says that the device was unplugged.
	ErrGone = errors.New("device is gone")
	// ErrNeedsReset says that the device has to be closed and opened again: it has asked
	// for a reset, violated the standard, or was disturbed by another program.
	ErrNeedsReset = errors.New("device needs a reset")
	// ErrInterrupted says that Interrupt ended a wait.
	ErrInterrupted = errors.New("interrupted")
	// ErrQueueFull says that a queue has no room for a chain until the device
	// uses an earlier one.
	ErrQueueFull = errors.New("queue is full")
	// ErrNoUIO says that the kernel has no uio_pci_generic.
	ErrNoUIO = errors.New("CONFIG_UIO_PCI_GENERIC")
)

// Features that are not specific to a device (section 6).
const (
	FeatureIndirect = 1 << 28
	FeatureVersion1 = 1 << 32
)
