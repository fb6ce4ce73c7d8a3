// SPDX-License-Identifier: Apache-2.0

// Package device implements virtio-fbpp (docs/spec.md), the device that finds out
// at a migration which of a guest's memory is free, as a vhost-user backend.
//
// A [Device] serves one virtual machine. It lives as long as its process; the
// frontend (QEMU) and the guest's driver may come and go meanwhile. What one
// migration does is an exchange: the frontend asks through the hint window, the
// device asks its sources (package source) in turn, and answers with the
// coalesced ranges. The guest's own driver (package driver) is the first source.
// Whatever goes wrong ends the exchange with a status that says so, and the
// migration goes on without hints.
//
// # Concurrency
//
// All exported methods are safe for concurrent use. One mutex guards the
// requests, the window and what is known of the frontend. A source runs on a
// goroutine of its own, without it. The free set, which a source fills, has a
// mutex of its own: so the next request, and a change of the memory table, wait
// for a source that has not noticed yet that nobody wants its findings.
package device
