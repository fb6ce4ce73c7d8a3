// SPDX-License-Identifier: Apache-2.0

// Package backend checks vhost-user backends, rule by rule, the way a frontend
// meets them. It needs nothing of a backend but the socket that it listens on.
//
// The rules VHU-* come from docs/interop/vhost-user.rst of QEMU 10.0, from VIRTIO
// 1.2 as far as it shows on the rings, and from what QEMU 10.0 does where the
// document leaves it open. The rules of a feature that the backend does not offer
// do not apply to it. Rules that need a device to work on buffers take a
// [Profile], which knows what the device does with them. The rules FBPP-* belong
// to the profile of the free page device.
//
// Each check has a connection of its own. Checks of hostile input end with the
// question whether the backend still serves.
package backend
