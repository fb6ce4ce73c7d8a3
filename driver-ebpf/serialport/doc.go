// SPDX-License-Identifier: Apache-2.0

// Package serialport tells the host why this guest reports nothing where the
// kernel gives user space no device: through a virtio-serial port (docs/spec.md,
// section 7.4).
package serialport
