// SPDX-License-Identifier: Apache-2.0

// Package protocol has the formats that host, guest and QEMU share. The device and
// a guest's driver exchange the configuration space, events, messages and records
// (docs/spec.md; comments give its section numbers). The device and QEMU share the
// hint window (docs/window.md).
//
// These formats are defined nowhere else, and the package imports nothing from its
// users. Every Encode method writes into the caller's memory and allocates
// nothing. Every Decode function checks the length; those for messages of the
// guest also check reserved fields and values. Their errors wrap [ErrMalformed].
// All fields are little endian.
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
