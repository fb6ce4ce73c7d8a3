// SPDX-License-Identifier: Apache-2.0

// Package protocol holds what host, guest and QEMU say to one another: the
// configuration space, events, messages and records that the device and a
// guest's driver exchange (docs/spec.md, whose section numbers the comments
// give), and the layout of the hint window between the device and QEMU
// (docs/window.md).
//
// It is the one home of these formats, and it imports nothing of their users.
// Every Encode method writes into memory that the caller supplies and allocates
// nothing; every Decode function checks length, reserved fields and known
// values, and returns an error that wraps [ErrMalformed]. All fields are little
// endian.
package protocol

import "errors"

// ErrMalformed is wrapped by every decoding error.
var ErrMalformed = errors.New("malformed")

// Identity and shape of the device (sections 1 and 2).
const (
	DeviceID     = 63     // virtio device id
	PCIVendorID  = 0x1af4 // Red Hat's, as for every virtio device
	PCIDeviceID  = 0x107f // 0x1040 + DeviceID
	EventQueue   = 0
	ReportQueue  = 1
	NumQueues    = 2
	MaxQueueSize = 1024
)
