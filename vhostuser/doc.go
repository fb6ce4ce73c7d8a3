// SPDX-License-Identifier: Apache-2.0

// Package vhostuser implements the backend side of the vhost-user protocol
// (docs/interop/vhost-user.rst of QEMU 10.0) for virtio 1.x devices with split
// virtqueues.
//
// A device author fills in a [Device]: feature bits, the number of queues and
// the callbacks that matter to the device. [NewServer] makes a server of it,
// [Open], [Listen] or [FromFD] supply the frontends, and [Server.Serve] runs one
// frontend (QEMU) after the other. The library owns everything else: feature
// negotiation, guest memory, the rings, dirty logging for live migration, and
// every file descriptor that the frontend sends.
//
// Package program makes a backend program of a device, and vhostuser/examples
// has two: an entropy device and a disk. Package vhosttest plays QEMU and the
// guest in tests.
//
// # Lifetime
//
// Each connection has its own [Backend] and its own [Queue] values. A Queue of
// an earlier connection stays valid as a Go value; its methods return
// [ErrQueueStopped]. So do those of a queue that the frontend stopped.
//
// # Goroutines
//
// Two kinds of goroutine call the device. The message goroutine, the one that
// called Serve, makes every callback except Kick, one at a time. Each running
// queue has a goroutine of its own, which calls Kick and nothing else. QEMU's
// main loop, and with it often the guest, stands still while a callback of the
// message goroutine runs: it must not wait for anything that the frontend or
// the guest has to do.
//
// # Trust
//
// Neither the driver in the guest nor the frontend is trusted with the life of
// this process. A malformed ring ends in a broken queue ([RingError]), a
// malformed message in a refusal or a closed connection, and memory that the
// frontend truncates under us in an error ([Guard], [MemoryFault]). None of
// them ends in a panic.
//
// # What is left out
//
// Packed rings, EVENT_IDX, INFLIGHT_SHMFD, DEVICE_STATE, IOTLB and postcopy are
// not offered yet. The messages of net, crypto, GPU and Xen devices have names
// (see package wire) and are refused. Only little-endian hosts are supported.
package vhostuser
