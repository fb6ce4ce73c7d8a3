// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// liar is a backend that a test uses instead of fbppd. It speaks vhost-user
// correctly and reads the driver's messages, but the test decides what its hint
// window and its answers contain.
type liar struct {
	socket   string
	window   atomic.Pointer[func() (*fakeWindow, error)]       // makes the next frontend's window
	answer   atomic.Pointer[func(w *fakeWindow, asked uint64)] // writes an answer
	messages atomic.Int64                                      // read from the driver so far
	left     chan struct{}                                     // one value per disconnect
	backend  atomic.Pointer[vhostuser.Backend]                 // of the newest connection
}

// startLiar starts a liar that is correct until the test calls offer or say.
func startLiar(t *testing.T) *liar {
	t.Helper()
	l := &liar{socket: filepath.Join(t.TempDir(), "liar.sock"), left: make(chan struct{}, 1024)}
	l.offer(honestWindow)
	l.say(func(w *fakeWindow, asked uint64) { w.answer(asked, answerOK) })
	serve(t, l.socket, l.device())
	return l
}

// serve serves a device of the test's own, until the test ends.
func serve(t *testing.T, socket string, device *vhostuser.Device) {
	t.Helper()
	listener, err := vhostuser.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	server, err := vhostuser.NewServer(device, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(ctx, listener) // until the test ends
	}()
	t.Cleanup(func() {
		cancel()
		<-served
		listener.Close()
	})
}

// offer sets how the next frontend's window is made.
func (l *liar) offer(window func() (*fakeWindow, error)) { l.window.Store(&window) }

// say sets how questions are answered from now on.
func (l *liar) say(answer func(w *fakeWindow, asked uint64)) { l.answer.Store(&answer) }

// hangUp closes the connection, and returns when the server has ended it.
func (l *liar) hangUp() {
	for len(l.left) > 0 {
		<-l.left
	}
	l.backend.Load().Close()
	<-l.left
}

func (l *liar) device() *vhostuser.Device {
	var end func() // ends serve for the connected frontend
	leave := func() {
		if end != nil {
			end()
			end = nil
		}
	}
	return &vhostuser.Device{
		NumQueues:    protocol.NumQueues,
		MaxQueueSize: protocol.MaxQueueSize,
		ReadConfig:   func(p []byte, _ uint32) error { clear(p); return nil },
		Kick:         l.kick,
		Connected:    l.backend.Store,
		Disconnected: func(*vhostuser.Backend, error) {
			leave()
			l.left <- struct{}{}
		},
		Extensions: []vhostuser.Extension{{
			ProtocolFeature: protocol.WindowProtocolFeature,
			Request:         protocol.WindowRequest,
			Replies:         true,
			Handle: func([]byte, []*os.File) ([]byte, []int, error) {
				leave()
				w, err := (*l.window.Load())()
				if err != nil {
					return nil, nil, err
				}
				end = l.serve(w)
				return w.payload, w.fds, nil
			},
		}},
	}
}

// kick reads and counts the driver's reports, and sends the driver no event.
func (l *liar) kick(q *vhostuser.Queue) {
	for q.Index() == protocol.ReportQueue {
		c, err := q.Pop()
		if c == nil || err != nil || q.Push(c, 0) != nil || q.Notify() != nil {
			return
		}
		l.messages.Add(1)
	}
}

// serve answers the questions in a window until end is called, which closes the
// window. It polls the window's memory, because some windows have no usable
// eventfd.
func (l *liar) serve(w *fakeWindow) (end func()) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for seen := uint64(0); w.mem != nil; {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if asked := w.get(askGeneration); asked != seen {
				seen = asked
				(*l.answer.Load())(w, asked)
			}
		}
	})
	return func() {
		close(stop)
		running.Wait()
		w.close()
	}
}

// Words of the window that the tests touch (docs/window.md).
const (
	windowMagic    = 0x000
	windowCapacity = 0x008
	askGeneration  = 0x040
	doneGeneration = 0x080
	doneStatus     = 0x088
	rangeCount     = 0x090
	rangeBytes     = 0x098
	doneTimes      = 0x0a0
	rangeSlots     = 0x1000

	windowSize = 1 << 16
	windowMax  = 256 << 20 // the largest that QEMU accepts
	slots      = (windowSize - rangeSlots) / 16
	magicWord  = 1<<32 | 0x50504246 // version 1, and "FBPP"
)

// Statuses of an answer.
const (
	answerOK      = 0
	answerUnknown = 77
)

// gpaRange is a range of guest physical memory, in bytes.
type gpaRange struct{ gpa, length uint64 }

// fakeWindow is a hint window, and the reply that passes it to QEMU.
type fakeWindow struct {
	payload []byte
	fds     []int  // descriptors in the reply: the memfd, ask and done in a correct one
	mem     []byte // the mapped memfd; nil: there is no window to answer in
	owned   []int  // descriptors to close
}

const allSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// honestWindow makes a correct window of version 1.
func honestWindow() (*fakeWindow, error) { return newWindow(windowSize, allSeals) }

// newWindow makes a window of a memfd of this size in bytes, with these seals.
func newWindow(size int, seals int) (_ *fakeWindow, err error) {
	w := &fakeWindow{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	memfd, err := unix.MemfdCreate("liar", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	w.owned = append(w.owned, memfd)
	if err := unix.Ftruncate(memfd, int64(size)); err != nil {
		return nil, err
	}
	w.mem, err = unix.Mmap(memfd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(memfd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, err
	}
	for range 2 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return nil, err
		}
		w.owned = append(w.owned, fd)
	}
	w.fds = append(w.fds, w.owned...)
	w.payload = binary.LittleEndian.AppendUint64(nil, 1)
	w.payload = binary.LittleEndian.AppendUint64(w.payload, uint64(size))
	w.put(windowMagic, magicWord)
	w.put(windowCapacity, uint64(size-rangeSlots)/16)
	return w, nil
}

func (w *fakeWindow) close() {
	if w.mem != nil {
		_ = unix.Munmap(w.mem)
		w.mem = nil
	}
	for _, fd := range w.owned {
		unix.Close(fd)
	}
}

func (w *fakeWindow) get(offset int) uint64    { return binary.LittleEndian.Uint64(w.mem[offset:]) }
func (w *fakeWindow) put(offset int, v uint64) { binary.LittleEndian.PutUint64(w.mem[offset:], v) }

// answer answers the question of generation asked. It counts all ranges, but
// writes no more of them than there are slots.
func (w *fakeWindow) answer(asked uint64, status uint64, ranges ...gpaRange) {
	bytes := uint64(0)
	for i, r := range ranges[:min(len(ranges), slots)] {
		w.put(rangeSlots+16*i, r.gpa)
		w.put(rangeSlots+16*i+8, r.length)
		bytes += r.length
	}
	w.put(rangeCount, uint64(len(ranges)))
	w.put(rangeBytes, bytes)
	w.put(doneStatus, status)
	w.done(asked)
}

// done publishes an answer whose other words have been written.
func (w *fakeWindow) done(asked uint64) {
	w.put(doneGeneration, asked)
	_, _ = unix.Write(w.fds[len(w.fds)-1], []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

var errNoWindow = errors.New("no window for you")
