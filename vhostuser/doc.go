// SPDX-License-Identifier: Apache-2.0

// Package vhostuser implements the backend side of the vhost-user protocol
// (docs/interop/vhost-user.rst of QEMU 10.0) for virtio 1.x devices.
//
// A device author fills in a [Device]: feature bits, the number of queues and
// the callbacks that the device needs. [NewServer] makes a server of it. [Open],
// [Listen] or [FromFD] accept frontends (QEMU), and [Server.Serve] serves one
// frontend after the other. The library does everything else: feature negotiation,
// guest memory, the rings, dirty logging for live migration, and every file
// descriptor that the frontend sends.
//
// Package program makes a program of a device. vhostuser/examples has two such
// programs: an entropy device and a disk. Package vhosttest has a frontend, for tests
// of a device and as a client.
//
// # Lifetime
//
// Each connection has its own [Backend] and its own [Queue] values. A Queue of
// an earlier connection stays valid as a Go value; its methods return
// [ErrQueueStopped]. So do those of a queue that the frontend stopped.
//
// # Goroutines
//
// The message goroutine is the goroutine that called Serve. It calls all callbacks,
// one at a time, except Kick, SaveState and LoadState. Each running queue has a
// goroutine for Kick, which occupies a thread while it waits for kicks. SaveState and
// LoadState run on a goroutine that lives as long as the transfer.
//
// While the message goroutine runs a callback, QEMU's main loop waits, and often the
// guest, too. So a callback must not wait for the frontend or the guest.
//
// # Virtqueues
//
// The library handles split and packed rings, indirect descriptors, event indices and
// in-order use. A device sees only chains ([Queue.Pop], [Queue.Push],
// [Queue.Notify]). It says in [Device.Features] whether it offers
// VIRTIO_F_RING_PACKED and VIRTIO_F_IN_ORDER. A device with many small requests can
// pop and push them in batches ([Queue.PopBatch], [Queue.PushBatch]). The driver is
// asked not to kick while a queue's goroutine works or polls for more, which it does
// for a moment before it sleeps ([Device.SpinTime]). With [Device.TrackInflight],
// requests survive the process that popped them.
//
// Indices and flags are accessed with acquire and release semantics, and with a full
// fence where each side writes one word and then reads the other's. Operations that Go
// lacks are in assembly for amd64 and arm64; package internal/shm explains why they are
// right. The library does not build for other architectures.
//
// # Trust
//
// This process survives whatever the driver in the guest and the frontend do. A
// malformed ring ends in a broken queue ([RingError]), a malformed message in a refusal
// or a closed connection, and an access to memory that the frontend has truncated in an
// error ([Guard], [MemoryFault]). None of them ends in a panic. Every wait for the
// frontend ends with the connection.
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
// A feature has no effect before the frontend has negotiated it.
//
// # What is refused
//
// The library logs a refused request. It tells the frontend by the acknowledgement, if
// the frontend asked for one. It also drops what an earlier request of the same kind
// has set, because the frontend wanted to change that:
//
//   - the size, base or address of a ring, features, or the memory in which requests are
//     tracked: the ring does not start until the frontend sets them again. A running ring
//     continues, but without an address it pauses;
//   - the memory table: the device has no memory;
//   - a translation: all translations that the message may have been about;
//   - the backend channel: it is closed.
//
// A refused descriptor of a ring, status, configuration or memory slot changes nothing.
// A log that cannot be mapped ends the connection, because QEMU would otherwise migrate
// without the pages that the device writes. A ring also loses its address when it is
// stopped and when the device is reset.
//
// # Migration
//
// The library marks in the dirty log what a device writes with [Chain.WriteAt], and what
// it writes to the rings itself. So a device migrates without code of its own, unless it
// has state beyond its queues. Writes to [Segment.Bytes] are not marked, and therefore
// forbidden.
//
// At the destination of a postcopy migration pages of the guest may be missing.
// [Queue.Pop] waits until the pages of the chain have arrived, and [Memory.Segments] and
// [Memory.ReadAt] wait too. They wait in a system call. A goroutine that waited in a
// memory access of its own would block the garbage collector, and with it the process.
//
// Behind an IOMMU, [Queue.Pop] asks the frontend for missing translations. The driver may
// take memory back at any time; [Chain.WriteAt] fails then.
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
