// SPDX-License-Identifier: Apache-2.0

// Package vhostuser implements the backend side of the vhost-user protocol
// (docs/interop/vhost-user.rst of QEMU 10.0) for virtio 1.x devices.
//
// A device author fills in a [Device]: feature bits, the number of queues and
// the callbacks that matter to the device. [NewServer] makes a server of it,
// [Open], [Listen] or [FromFD] supply the frontends, and [Server.Serve] runs one
// frontend (QEMU) after the other. The library owns everything else: feature
// negotiation, guest memory, the rings, dirty logging for live migration, and
// every file descriptor that the frontend sends.
//
// Package program makes a backend program of a device, and vhostuser/examples
// has two: an entropy device and a disk. Package vhosttest is the other side, for
// tests of a device and as a client.
//
// # Lifetime
//
// Each connection has its own [Backend] and its own [Queue] values. A Queue of
// an earlier connection stays valid as a Go value; its methods return
// [ErrQueueStopped]. So do those of a queue that the frontend stopped.
//
// # Goroutines
//
// The message goroutine is the one that called Serve. It makes all callbacks, one
// at a time, but for Kick, SaveState and LoadState. Each running queue has a
// goroutine for Kick, which holds a thread while it waits for kicks. SaveState and
// LoadState run on a goroutine that lives as long as the transfer.
//
// QEMU's main loop, and often the guest with it, stands still while the message
// goroutine makes a callback. So a callback must not wait for anything that the
// frontend or the guest has to do.
//
// # Virtqueues
//
// Split and packed rings, indirect descriptors, event indices and use in order
// are the library's business: a device sees chains ([Queue.Pop], [Queue.Push],
// [Queue.Notify]) and says in [Device.Features] whether it offers
// VIRTIO_F_RING_PACKED and VIRTIO_F_IN_ORDER. A device with many small requests
// takes and completes them in batches ([Queue.PopBatch], [Queue.PushBatch]).
// The driver is asked not to kick while a queue's goroutine works or looks for
// more, as it does for a moment before it sleeps ([Device.SpinTime]). With
// [Device.TrackInflight], requests outlive the process that popped them.
//
// Indices and flags are accessed with acquire and release semantics, and with
// a full fence where both sides look at each other's word. What Go has no
// operation for is in assembly for amd64 and arm64; package internal/shm has
// the argument. Other architectures do not build.
//
// # Trust
//
// Neither the driver in the guest nor the frontend is trusted with the life of
// this process. A malformed ring ends in a broken queue ([RingError]), a
// malformed message in a refusal or a closed connection, and memory that the
// frontend truncates under us in an error ([Guard], [MemoryFault]). None of
// them ends in a panic, and no wait for the frontend is longer than the
// connection.
//
// # What is offered
//
// Every device: split rings, indirect descriptors, EVENT_IDX, LOG_ALL, and the
// protocol features MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, BACKEND_SEND_FD,
// RESET_DEVICE, CONFIGURE_MEM_SLOTS (509 of them), STATUS, HOST_NOTIFIER and
// INBAND_NOTIFICATIONS; and PAGEFAULT where the process may have a userfaultfd of any
// kind (see [WithUserfault]).
//
// Devices that ask for it, by a field of [Device]: packed rings, IN_ORDER and
// ACCESS_PLATFORM (an IOMMU) by their feature bits, CONFIG by ReadConfig,
// DEVICE_STATE by SaveState and LoadState, INFLIGHT_SHMFD by TrackInflight,
// SHARED_OBJECT by SharedObject, and private messages by Extensions.
//
// Nothing is honoured before the frontend has negotiated it.
//
// # What is refused
//
// A request that is refused is told by its acknowledgement, if the frontend asked for
// one, and by a line in the log. What an earlier request of its kind had set is not
// what the frontend means any more, and is forgotten:
//
//   - the size, base or address of a ring, features, or the memory to track requests
//     in: the ring does not start until it is told again. A ring that runs goes on,
//     but pauses without an address;
//   - the memory table: the device has no memory;
//   - a translation: all that the message may have been about;
//   - the backend channel: it is closed.
//
// A refused descriptor of a ring, status, configuration or slot leaves all as it was. A
// log that cannot be mapped ends the connection: QEMU would migrate without the pages
// that the device writes. A ring also loses its address when it is stopped and when the
// device is reset.
//
// # Migration
//
// What a device writes with [Chain.WriteAt], and what the library writes to the
// rings, is in the dirty log, so that a device migrates without code of its own
// unless it has state beyond its queues. [Segment.Bytes] must not be written
// for that reason.
//
// At the destination of a postcopy migration a page of the guest may not be
// there yet. [Queue.Pop] waits until those of the chain are, and
// [Memory.Segments] and [Memory.ReadAt] wait too. They do so in a system call:
// a goroutine that stood in an access of its own would hold up the garbage
// collector, and so the whole process.
//
// Behind an IOMMU, [Queue.Pop] asks the frontend for the translations that it
// does not know. The driver may take memory back at any time; [Chain.WriteAt]
// fails then.
//
// # What is left out
//
// The messages below have names (see package wire) and are refused:
//
//   - SEND_RARP and NET_SET_MTU (RARP, MTU), which concern network devices;
//   - CREATE_CRYPTO_SESSION and CLOSE_CRYPTO_SESSION (CRYPTO_SESSION), which
//     concern crypto devices;
//   - GPU_SET_SOCKET, which opens another protocol;
//   - the regions of XEN_MMAP, which take Xen's own way to map memory;
//   - SET_VRING_ENDIAN (CROSS_ENDIAN), since virtio 1.x is little-endian.
//
// Of what came after QEMU 10.0, GET_VRING_BASE_INFLIGHT and SHMEM have names
// and are not offered. Legacy virtio (before 1.0) and big-endian hosts are not
// supported.
package vhostuser
