// SPDX-License-Identifier: Apache-2.0

// Package wire holds the vhost-user messages: their names, their layout, and a
// connection that carries them with file descriptors over a Unix socket.
//
// Decoders check bounds, and take any input without a panic. The caller has to check whether
// a value makes sense, and whether its feature was negotiated. Names and numbers are those of
// docs/interop/vhost-user.rst and of the VIRTIO 1.2 standard. All integers are little-endian,
// as on every host that this package supports.
package wire
