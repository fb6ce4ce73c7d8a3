// SPDX-License-Identifier: Apache-2.0

// Package backend checks vhost-user backends, rule by rule. It acts as a frontend, and
// needs only the socket on which the backend listens.
//
// The rules VHU-* come from docs/interop/vhost-user.rst of QEMU 10.0, from VIRTIO 1.2 as far
// as rings are concerned, and from the behaviour of QEMU 10.0 where the document leaves a
// choice. The rules of a feature do not apply if the backend does not offer the feature. Rules
// that need the device to use buffers need a [Profile], which knows what the device does with
// them. The rules FBPP-* belong to the profile of the fbpp device.
//
// Each check has a connection of its own. A check with hostile input ends by checking that
// the backend still serves.
package backend
