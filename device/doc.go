// SPDX-License-Identifier: Apache-2.0

// Package device implements virtio-fbpp (docs/spec.md), the device that asks a
// guest which of its memory is free, as a vhost-user backend.
//
// A [Device] serves one virtual machine. It lives as long as its process; the
// frontend (QEMU) and the guest's driver may come and go meanwhile. What one
// migration does is an exchange: the frontend asks through the hint window,
// the device raises the migration interrupt, the driver reports, and the device
// answers with the coalesced ranges. Whatever goes wrong ends the exchange with
// a status that says so, and the migration goes on without hints.
//
// # Concurrency
//
// All exported methods are safe for concurrent use. Inside, one mutex guards
// the whole state machine: its events come from the frontend's messages, the
// two queues, the window and the deadline's timer, and each is short.
package device
