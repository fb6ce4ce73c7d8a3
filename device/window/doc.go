// SPDX-License-Identifier: Apache-2.0

// Package window is the backend's side of the hint window: the sealed piece of
// shared memory and the two eventfds through which QEMU's migration thread asks
// for free memory and gets its answer. docs/window.md specifies it.
//
// The frontend can write all of the memory at any time. So this side reads each
// field that the frontend writes only once: those of the request, of an outcome
// and of the answer to a peek. A wrong generation, deadline or answer harms only
// the virtual machine whose QEMU wrote it.
package window
