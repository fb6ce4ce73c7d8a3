// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"io"
	"os"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Device describes a virtio device to a [Server]: what it offers and what it
// does. The zero value of every optional callback does nothing.
//
// Unless said otherwise a callback runs on the message goroutine, one at a
// time, while the frontend waits. It may call any method of Queue and Memory,
// and the methods of Backend that do not wait for the frontend. It must not wait
// for the frontend, the guest, or Kick.
type Device struct {
	// Features are the feature bits that the device offers: those of its own
	// kind (0 to 23, and 50 up), and those of the transport that it implements
	// itself. The library adds VIRTIO_F_VERSION_1, VIRTIO_F_INDIRECT_DESC,
	// VIRTIO_F_EVENT_IDX, VHOST_F_LOG_ALL and VHOST_USER_F_PROTOCOL_FEATURES.
	//
	// Three more are implemented by the library, and offered if they are set
	// here: wire.FeatureRingPacked, wire.FeatureInOrder and
	// wire.FeatureAccessPlatform.
	Features uint64

	// NumQueues is how many virtqueues the device has, 1 to 128.
	NumQueues int

	// MaxQueueSize bounds the size that a driver may choose for a queue. It is
	// a power of two up to 32768; zero means 1024. A smaller bound than 1024 may
	// refuse QEMU 10, which can set that size though the device was given a
	// smaller queue-size, as vhost-user-blk is.
	MaxQueueSize int

	// SpinTime is how long a queue's goroutine polls for new buffers before it
	// sleeps, after a Kick that popped some. While it polls, the driver need not
	// kick, and its next request is served at once, but a processor is busy. If
	// polling finds nothing it is done less and less often.
	//
	// Zero means 50 microseconds, or up to 200 after a Kick that popped many
	// chains, because the driver then needs longer. A negative time means never.
	SpinTime time.Duration

	// TrackInflight offers INFLIGHT_SHMFD: requests survive the death of this
	// process. The frontend keeps a record of the requests that were popped and
	// not completed. The next process pops these before any others.
	//
	// The dead process may have carried out such a request already. So this is
	// for devices whose requests may be carried out twice, such as disks. A device
	// that completes its requests in order needs no record: its ring shows which
	// requests are open.
	TrackInflight bool

	// ReadConfig fills p with the bytes of the device's config space that
	// begin at offset off. Reading past the end is an error. A nil ReadConfig
	// means that there is no config space, and CONFIG is not offered.
	ReadConfig func(p []byte, off uint32) error

	// WriteConfig changes the bytes at off to those of p, which is valid during
	// the call. Nil refuses every write.
	WriteConfig func(p []byte, off uint32) error

	// Kick says that the driver may have made buffers available on q, and pops
	// until [Queue.Pop] finds nothing. It runs on q's own goroutine, never twice
	// at once for one queue. It is also called whenever the queue starts to
	// run, since kicks may have come earlier.
	//
	// A stop of the queue waits two seconds for Kick to return. Then it continues
	// without waiting, and the methods that Kick calls return ErrQueueStopped. A
	// device that needs more time waits in QueueStopping. Kick is required.
	Kick func(q *Queue)

	// Connected announces a new frontend. b is valid until Disconnected.
	Connected func(b *Backend)

	// Disconnected says that the frontend is gone. err is the reason, or nil if
	// the frontend closed the connection between two messages. All queues were
	// stopped before. The device may keep state for the next frontend.
	Disconnected func(b *Backend, err error)

	// FeaturesAcked tells the negotiated feature bits, without the bits that
	// belong to vhost-user. It comes before the queues start, and again
	// (usually unchanged) when dirty logging is switched.
	FeaturesAcked func(features uint64)

	// QueueStarted says that q runs: the frontend started and enabled it. It
	// precedes the first Kick.
	QueueStarted func(q *Queue)

	// QueueStopping says that q is about to stop, or to be disabled. Pop returns no
	// more chains, so that a running Kick ends. Inside the call the device can
	// still Push and Unpop its outstanding chains; see [Queue.Unpop] for the
	// others. If the frontend is gone, both return ErrQueueStopped.
	//
	// A device whose requests have effects outside of the guest has to wait here
	// until no request is under way. As soon as the queue has stopped, another
	// backend may use the same disk, perhaps on another host.
	QueueStopping func(q *Queue)

	// Reset says that the driver or the frontend reset the device (RESET_DEVICE
	// or a status of zero). All queues have been stopped. Some frontends, QEMU
	// 7.2 among them, set the status to zero whenever the VM is stopped, also
	// at the end of a migration, and continue the same driver afterwards.
	Reset func()

	// MemoryChanged says that the guest memory table changed. m is valid during
	// the call; use [Memory.Retain] to keep it. For a guest with many memory
	// modules the table changes once for each. So compare [Memory.Regions] with the
	// last table, and handle only the difference.
	MemoryChanged func(m *Memory)

	// KeepMemoryFiles keeps a descriptor for each region of guest memory, see
	// [Memory.Files].
	KeepMemoryFiles bool

	// SaveState writes the device's state, except the indices of its queues, at
	// the source of a migration. LoadState reads this state to its end, and
	// restores it, at the destination. All queues are stopped. Both run on a
	// goroutine of their own. They have to return soon after an error of w or r,
	// because the frontend may have cancelled the transfer. A device sets both, and
	// then offers DEVICE_STATE, or neither.
	SaveState func(w io.Writer) error
	LoadState func(r io.Reader) error

	// SharedObject returns a descriptor of the object that the device exports
	// under id (GET_SHARED_OBJECT). The device keeps the ownership of the
	// descriptor. SHARED_OBJECT is offered only if this callback is set. A device
	// that only imports objects returns an error. See [Backend.AddSharedObject].
	SharedObject func(id wire.UUID) (fd int, err error)

	// Extensions are private messages that the device understands.
	Extensions []Extension
}

// Extension is a private request of the frontend under a private protocol
// feature bit. It is accepted only when that bit was negotiated.
type Extension struct {
	// ProtocolFeature is the number of the bit that is offered in
	// GET_PROTOCOL_FEATURES and guards the request.
	ProtocolFeature uint

	// Request is the message id. It must not be one that the protocol defines.
	Request uint32

	// Replies says that the frontend always waits for a reply message. Without
	// it the reply of Handle is ignored, and the frontend learns the outcome
	// through REPLY_ACK if it asked to.
	Replies bool

	// Handle answers the request, on the message goroutine. payload is valid
	// during the call. Handle owns files, and closes them. Do not call Fd on files
	// that share an open file description with the frontend: it makes them blocking
	// there as well. The reply's fds are sent, and remain owned by the device. An
	// error is logged. If Replies is set, the reply to an error has an empty payload
	// and no fds.
	Handle func(payload []byte, files []*os.File) (reply []byte, fds []int, err error)
}
