// SPDX-License-Identifier: Apache-2.0

// Package vm runs QEMU for tests and the demo: the guest of package guest, its
// console and order channel, the monitor, and migrations between two processes.
//
// A [VM] is one QEMU process with its sockets and logs. Close ends the process, and
// the kernel kills it when the process that started it ends. [VM.Diagnosis] helps to
// find out why a guest failed: it has the command line to reproduce it, QEMU's
// messages and the end of the console.
//
// The folder of sockets and logs has a short name, because the path of a unix socket
// is limited to about 100 bytes.
package vm
