// SPDX-License-Identifier: Apache-2.0

// Package vhosttest is the other side of vhost-user: a frontend like QEMU, the guest's
// memory, the driver of the rings, and the reader of the dirty log. It is for tests of any
// backend. Programs can also use it as a client library, to use a vhost-user device without
// a virtual machine: the guest's memory is then the program's own.
//
// [Dial] connects to a backend. [Frontend.Realize], [Frontend.Start] and
// [Frontend.Stop] send what QEMU 10.0 sends, in its order. A [Queue] is the
// driver of one virtqueue: Add makes buffers available, Kick tells the device,
// Wait returns what it used.
//
// Other tasks of a frontend have a type or method each: [Frontend.SaveState] and
// [Frontend.LoadState] move the state of a device, [IOMMU] translates addresses, [Postcopy]
// serves page faults, [Channel] answers the backend's own requests. [Migration] checks dirty
// logging: it copies memory as a live migration does, by the log alone, and compares at the
// end.
//
// Hostile tests can also send single requests and raw bytes, and write raw descriptors of a
// ring.
//
// Every wait is bounded by [Frontend.Timeout] or an argument, and ends in an
// error that wraps [ErrTimeout] or the context's. The package knows nothing of
// the backend's implementation.
package vhosttest
