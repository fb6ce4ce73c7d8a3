// SPDX-License-Identifier: Apache-2.0

// Package vhosttest plays the other side of vhost-user for tests: the frontend
// that QEMU is, the guest memory, the driver behind the rings, and the reader
// of the dirty log.
//
// [Dial] connects to any backend, [Frontend.Realize], [Frontend.Start] and
// [Frontend.Stop] send what QEMU 10.0 sends, in its order. [Migration] is the
// oracle of dirty logging: it copies memory as a live migration does, by the
// log alone, and compares at the end. For hostile tests the parts below are
// open too: single requests, raw bytes, raw descriptors of a ring.
//
// The package knows nothing of the backend's implementation.
package vhosttest
