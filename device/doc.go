// SPDX-License-Identifier: Apache-2.0

// Package device implements virtio-fbpp (docs/spec.md) as a vhost-user backend.
// When a migration begins, the device finds out which pages of the guest's memory
// are free, and tells QEMU.
//
// A [Device] serves one virtual machine and lives as long as its process. The
// frontend (QEMU) and the guest's driver may come and go meanwhile.
//
// Each migration makes one exchange. The frontend asks through the hint window.
// The device asks its sources (package source) one after the other, and answers
// with coalesced ranges of free memory. The first source is the guest's own driver
// (package driver). A failure ends the exchange with a status that names it, and
// the migration continues without hints.
//
// # Concurrency
//
// All exported methods are safe for concurrent use. One mutex guards the
// requests, the window and the state of the frontend. A source runs on its own
// goroutine and does not hold that mutex. A second mutex guards the free set,
// which a source fills. A cancelled source may still run for a moment: the next
// request, or a change of the memory table, waits for this mutex until it stops.
package device
