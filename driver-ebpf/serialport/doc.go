// SPDX-License-Identifier: Apache-2.0

// Package serialport carries the agent's messages over a virtio-serial port (docs/spec.md,
// section 7.4). It is for kernels under which a program cannot drive the fbpp device: the
// port is the kernel's. A host may take no reports there. Then it hears why there are none.
package serialport
