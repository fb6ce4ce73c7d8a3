// SPDX-License-Identifier: Apache-2.0

// Package virtio drives a virtio device over PCI from user space.
//
// The kernel's part is uio_pci_generic, which turns the device's interrupt
// line (INTx) into a readable file. Registers are reached through the BARs that
// sysfs lets root map, and rings lie in memory of package dma. The package knows
// VIRTIO 1.x devices and split virtqueues with at most 256 descriptors, so that
// each part of a ring fits in one page, and knows nothing of what a device does.
//
// Section numbers in comments are those of the Virtual I/O Device standard,
// version 1.2.
package virtio

import "errors"

// Errors that callers tell apart.
var (
	// ErrOtherDevice says that a PCI address is that of another device.
	ErrOtherDevice = errors.New("another device is there")
	// ErrGone says that the device does not answer any more: it was unplugged.
	ErrGone = errors.New("device is gone")
	// ErrNeedsReset says that the device has asked to be reset, or broke its
	// part of the contract: it has to be opened again.
	ErrNeedsReset = errors.New("device needs a reset")
	// ErrInterrupted says that Interrupt ended a wait.
	ErrInterrupted = errors.New("interrupted")
	// ErrQueueFull says that a queue has no room for a chain until the device
	// uses an earlier one.
	ErrQueueFull = errors.New("queue is full")
)

// Features that are not specific to a device (section 6).
const (
	FeatureIndirect = 1 << 28
	FeatureVersion1 = 1 << 32
)
