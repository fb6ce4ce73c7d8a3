// SPDX-License-Identifier: Apache-2.0

// Package serialport tells the host over a virtio-serial port why this guest does not report. It
// is for kernels under which a program cannot drive the fbpp device (docs/spec.md, section
// 7.4).
package serialport
