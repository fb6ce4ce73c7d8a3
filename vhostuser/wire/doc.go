// SPDX-License-Identifier: Apache-2.0

// Package wire holds the vhost-user messages: their names, their layout, and a
// connection that carries them with file descriptors over a Unix socket.
//
// It has no state and no policy. Decoders are bounds-checked and accept any
// input; what a value means, and whether it was negotiated, is for the caller
// to judge. Names and numbers are those of docs/interop/vhost-user.rst and of
// the VIRTIO 1.2 standard. All integers are little-endian, as on every host
// that this package supports.
package wire
