// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"

	"go.uber.org/zap"
)

var errTODO = errors.New("not implemented yet")

// Server serves a Device to one frontend at a time.
type Server struct{}

// NewServer checks dev and makes a server of it. dev must not change
// afterwards. lg may be nil.
func NewServer(dev *Device, lg *zap.Logger) (*Server, error) { return nil, errTODO }

// Serve serves the frontends that l accepts, one after the other, until ctx
// ends (and returns its cause), until l fails, or, when l was an inherited
// connected socket, until that connection closes (and returns nil). The
// goroutine that calls Serve becomes the message goroutine. Serve does not
// close l.
func (s *Server) Serve(ctx context.Context, l *Listener) error { return errTODO }

// Listener is where frontends come from: a listening Unix socket or a single
// connection.
type Listener struct{}

// Listen listens on a Unix socket at path, which only the owner of the process
// may connect to (mode 0600). A socket file that nobody listens on any more is
// replaced.
func Listen(path string) (*Listener, error) { return nil, errTODO }

// FromFD takes ownership of an inherited socket. SO_ACCEPTCONN tells a
// listening from a connected one.
func FromFD(fd int) (*Listener, error) { return nil, errTODO }

// Close closes the socket and unlinks the path that Listen made, if the file
// there is still the same one.
func (l *Listener) Close() error { return errTODO }

// Backend is the backend's end of one connection with a frontend.
type Backend struct{}

// Features returns the negotiated feature bits without those of vhost-user.
func (b *Backend) Features() uint64 { return 0 }

// ProtocolFeature says whether the frontend negotiated the given bit.
func (b *Backend) ProtocolFeature(bit uint) bool { return false }

// Queue returns queue i of this connection. It panics when i is out of range
// of Device.NumQueues.
func (b *Backend) Queue(i int) *Queue { return nil }

// Memory returns the current guest memory, retained: the caller must call
// [Memory.Release]. It is never nil, but has no regions while the frontend has
// given none.
func (b *Backend) Memory() *Memory { return nil }

// ConfigChanged tells the frontend, and through it the driver, that the config
// space changed. It may be called from any goroutine and does not block:
// notifications are sent in the background and several pending ones become
// one. It does nothing if the frontend gave no backend channel.
func (b *Backend) ConfigChanged() {}

// Close ends the connection, from any goroutine. A listening server then waits
// for the next one.
func (b *Backend) Close() {}

// Queue is a virtqueue of one connection. All methods may be called from any
// goroutine, also while the frontend stops the queue.
type Queue struct{}

// Index returns the queue's number.
func (q *Queue) Index() int { return 0 }

// Running says whether the queue is started and enabled at this moment.
func (q *Queue) Running() bool { return false }

// Pop takes the next chain that the driver made available. It returns nil, nil
// when there is none or the queue is disabled, ErrQueueStopped when the queue
// is stopped, and a *RingError when the ring is broken.
//
// Every chain must be given back once, by Push or Unpop, even after the queue
// was stopped: it keeps the guest memory mapped until then. The Chain must not
// be used after that.
func (q *Queue) Pop() (*Chain, error) { return nil, errTODO }

// Push completes c: it puts c on the used ring with the number of bytes that
// the device wrote. It does not interrupt the driver; see Notify. After the
// queue was stopped it returns ErrQueueStopped and only frees c.
func (q *Queue) Push(c *Chain, written uint32) error { return errTODO }

// Unpop gives back the chain that was popped last, unused: the next Pop, of
// this backend or of another one after a migration, finds it again.
//
// A queue that is stopped does this by itself with the chains popped last that
// are still outstanding. An outstanding chain that was popped before one that
// is already completed cannot be given back, since a split ring's state is a
// single index; it is completed with nothing written.
func (q *Queue) Unpop(c *Chain) error { return errTODO }

// Notify interrupts the driver, unless the driver asked not to be. One call
// serves any number of preceding Pushes.
func (q *Queue) Notify() error { return errTODO }

// Chain is a chain of descriptors: a request of the driver, with a part that
// the device reads followed by a part that it writes. A Chain is not safe for
// concurrent use.
type Chain struct{}

// Segment is a contiguous piece of guest memory.
type Segment struct {
	// Addr is the guest physical address.
	Addr uint64
	// Bytes aliases guest memory, which driver and frontend may change at any
	// time: read a field once, and inside [Guard]. It must not be written to,
	// since such writes are missing from the dirty log. Its capacity is its length.
	Bytes []byte
}

// Readable returns the part that the device reads, without empty descriptors.
// The slice is valid until the chain is given back.
func (c *Chain) Readable() []Segment { return nil }

// Writable returns the part that the device writes, by WriteAt.
func (c *Chain) Writable() []Segment { return nil }

// ReadableLen returns the length in bytes of the readable part.
func (c *Chain) ReadableLen() uint32 { return 0 }

// WritableLen returns the length in bytes of the writable part.
func (c *Chain) WritableLen() uint32 { return 0 }

// ReadAt implements io.ReaderAt over the readable part: it copies out of guest
// memory. A fault is returned as a *MemoryFault.
func (c *Chain) ReadAt(p []byte, off int64) (int, error) { return 0, errTODO }

// WriteAt implements io.WriterAt over the writable part: it copies into guest
// memory and marks what it wrote in the dirty log. It returns
// io.ErrShortWrite when p does not fit and ErrQueueStopped after the queue was
// stopped.
func (c *Chain) WriteAt(p []byte, off int64) (int, error) { return 0, errTODO }

// Region is a piece of guest memory that the frontend shares.
type Region struct {
	// Addr is the guest physical address, Size the length in bytes.
	Addr, Size uint64
}

// Memory is an immutable snapshot of the guest memory table, mapped into this
// process. It is reference-counted; the mappings live as long as a snapshot or
// an outstanding Chain uses them.
type Memory struct{}

// Regions returns the regions in ascending order of address.
func (m *Memory) Regions() []Region { return nil }

// Segments appends to dst the segments that make up the n bytes at guest
// physical address addr, or fails if some of them are not guest memory. A
// range may span adjacent regions.
func (m *Memory) Segments(dst []Segment, addr, n uint64) ([]Segment, error) { return nil, errTODO }

// ReadAt implements io.ReaderAt over guest physical addresses.
func (m *Memory) ReadAt(p []byte, addr int64) (int, error) { return 0, errTODO }

// Retain keeps the mappings until a matching Release.
func (m *Memory) Retain() {}

// Release drops a reference.
func (m *Memory) Release() {}

// MemoryFault is an access to guest memory that has no memory behind it, such
// as that of a file which the frontend truncated.
type MemoryFault struct {
	// Addr is the faulting address in this process.
	Addr uintptr
}

// Error implements error.
func (e *MemoryFault) Error() string { return "" }

// Guard runs f, which reads Segment.Bytes, and turns a memory fault inside f
// into a *MemoryFault. Any other panic passes through. f is cut off where the
// fault happened, but its deferred calls run. Guard covers f's own goroutine only.
func Guard(f func() error) error { return errTODO }
