// SPDX-License-Identifier: Apache-2.0

package window

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Window is the shared memory and its eventfds. It owns all three file
// descriptors. WaitAsk may run beside the other methods; these are called one
// at a time.
type Window struct {
	mem  []byte
	fd   int // the memfd
	ask  *os.File
	done int
	// askFD is ask's number: os.File.Fd would make the descriptor blocking.
	askFD    int
	capacity int // number of slots for ranges
	terms    Terms
	peek     peek
}

// New creates a window of the given size in bytes. Only the pages that are used
// take memory. It seals the memfd, so that neither process can truncate it while
// the other has it mapped.
func New(size int, t Terms) (_ *Window, err error) {
	const unit = protocol.WindowHeaderSize
	if size < protocol.WindowMinSize || size > protocol.WindowMaxSize || size%unit != 0 {
		return nil, fmt.Errorf("create hint window: size %d is not a multiple of %d from %d to %d",
			size, unit, protocol.WindowMinSize, protocol.WindowMaxSize)
	}
	w := &Window{fd: -1, done: -1, terms: t, capacity: (size - unit) / protocol.WindowRangeSize}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	w.fd, err = unix.MemfdCreate("fbpp-window", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create hint window: %w", os.NewSyscallError("memfd_create", err))
	}
	if err = unix.Ftruncate(w.fd, int64(size)); err != nil {
		return nil, fmt.Errorf("size hint window: %w", os.NewSyscallError("ftruncate", err))
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err = unix.FcntlInt(uintptr(w.fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal hint window: %w", os.NewSyscallError("fcntl", err))
	}
	w.mem, err = unix.Mmap(w.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map hint window: %w", os.NewSyscallError("mmap", err))
	}
	if w.askFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("create ask eventfd: %w", os.NewSyscallError("eventfd2", err))
	}
	w.ask = os.NewFile(uintptr(w.askFD), "fbpp-ask")
	if w.done, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("create done eventfd: %w", os.NewSyscallError("eventfd2", err))
	}
	w.store64(protocol.WindowCapacityOffset, uint64(w.capacity))
	w.store64(protocol.WindowFeaturesOffset, t.Features)
	w.store32(protocol.WindowVersionOffset, t.Version)
	w.store32(protocol.WindowMagicOffset, protocol.WindowMagic)
	return w, nil
}

// Close releases everything and ends WaitAsk. No other method may be called
// after it.
func (w *Window) Close() error {
	var errs []error
	if w.ask != nil {
		errs = append(errs, w.ask.Close())
	}
	for _, fd := range []int{w.done, w.fd} {
		if fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
		}
	}
	if w.mem != nil {
		errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(w.mem)))
	}
	w.mem, w.done, w.fd = nil, -1, -1
	return errors.Join(errs...)
}

// FDs returns the descriptors for the reply, in its order: the memfd, ask and
// done. The Window still owns them.
func (w *Window) FDs() []int { return []int{w.fd, w.askFD, w.done} }

// Size returns the window's size in bytes.
func (w *Window) Size() int { return len(w.mem) }

// WaitAsk blocks until the frontend signals, or until Close, when it returns an
// error that wraps os.ErrClosed.
func (w *Window) WaitAsk() error {
	raw, err := w.ask.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for a request: %w", err)
	}
	var readErr error
	if raw.Read(func(fd uintptr) (done bool) {
		done, readErr = drain(int(fd))
		return done
	}) != nil {
		return fmt.Errorf("wait for a request: %w", os.ErrClosed)
	}
	return readErr
}

// drain resets the counter of an eventfd, and returns false if it was zero. It
// never blocks, even if the descriptor is in blocking mode: the frontend shares
// the open file description, and QEMU makes each descriptor that it receives
// blocking for a moment. A blocked read would make Close wait for the next request.
func drain(fd int) (done bool, err error) {
	counter := [][]byte{make([]byte, 8)}
	for again := true; again; again = errors.Is(err, unix.EINTR) {
		_, err = unix.Preadv2(fd, counter, -1, unix.RWF_NOWAIT)
	}
	if errors.Is(err, unix.ENOSYS) { // QEMU's user mode emulation has none
		return drainReadable(fd)
	}
	if errors.Is(err, unix.EAGAIN) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("wait for a request: %w", os.NewSyscallError("preadv2", err))
	}
	return true, nil
}

// drainReadable is drain for a frontend that does not read the counter itself: else it may block.
func drainReadable(fd int) (done bool, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	if errors.Is(err, unix.EINTR) || n == 0 && err == nil {
		return false, nil
	}
	if err == nil {
		_, err = unix.Read(fd, make([]byte, 8))
	}
	if err != nil {
		return true, fmt.Errorf("wait for a request: %w", os.NewSyscallError("read", err))
	}
	return true, nil
}

// wake adds 1 to done. The descriptor may be in blocking mode, as drain says, so
// wake first polls whether a write would block. If it would, the counter is full,
// and the frontend sees the eventfd as readable anyway.
func (w *Window) wake() {
	fds := []unix.PollFd{{Fd: int32(w.done), Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds, 0); n == 0 && err == nil {
		return
	}
	one := [8]byte{0: 1}
	_, _ = unix.Write(w.done, one[:])
}
