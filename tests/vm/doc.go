// SPDX-License-Identifier: Apache-2.0

// Package vm runs QEMU for tests and the demo: a guest made by package guest,
// its console and order channel, the monitor, and migrations between two
// processes.
//
// A [VM] is one QEMU process and all that belongs to it; Close ends it, and it
// does not outlive the process that started it. What went wrong in the guest
// is in [VM.Diagnosis]: the command line to reproduce it, QEMU's own messages
// and the end of the console.
//
// Sockets and logs are in a folder with a short name, as the name of a unix
// socket has little room.
package vm
