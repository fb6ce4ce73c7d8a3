// SPDX-License-Identifier: Apache-2.0

// Package window is the backend's side of the hint window: the sealed piece of
// shared memory and the two eventfds through which QEMU's migration thread asks
// for free memory and gets its answer. docs/window.md specifies it.
//
// The other process can write all of the memory at any time. This side reads of
// it only the request's fields, each once, and believes none of them more than
// it must: a wrong generation or deadline harms the process that wrote it.
package window
