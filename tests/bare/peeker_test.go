// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// peeker is a backend whose hint window the test reads and writes directly. So it can
// answer and peek in any way.
type peeker struct {
	socket   string
	features uint64 // of the window
	memory   atomic.Pointer[[]vhostuser.Region]
	kept     atomic.Pointer[vhostuser.Memory] // the newest memory, retained until the next
	window   atomic.Pointer[rawWindow]        // of the newest connection
	ends     []func()                         // close all windows; only for the server's goroutine
}

// startPeeker starts a backend that offers these features of the window.
func startPeeker(t testing.TB, features uint64, options ...vhostuser.Option) *peeker {
	t.Helper()
	p := &peeker{features: features}
	t.Cleanup(func() { // runs after the server has ended
		for _, end := range p.ends {
			end()
		}
		if m := p.kept.Load(); m != nil {
			m.Release()
		}
	})
	p.socket = serve(t, &vhostuser.Device{
		NumQueues:     protocol.NumQueues,
		MaxQueueSize:  protocol.MaxQueueSize,
		ReadConfig:    func(b []byte, _ uint32) error { clear(b); return nil },
		Kick:          func(*vhostuser.Queue) {},
		Connected:     func(*vhostuser.Backend) { p.memory.Store(nil) },
		MemoryChanged: p.memoryChanged,
		Extensions: []vhostuser.Extension{{
			ProtocolFeature: protocol.WindowProtocolFeature,
			Request:         protocol.WindowRequest,
			Replies:         true,
			Handle: func(payload []byte, _ []*os.File) ([]byte, []int, error) {
				return p.open(t, payload)
			},
		}},
	}, options...)
	return p
}

// serve serves a device of the test's own until the test ends, and returns its
// socket.
func serve(t testing.TB, d *vhostuser.Device, options ...vhostuser.Option) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fbpp-peeker-") // short, for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "sock")
	l, err := vhostuser.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	server, err := vhostuser.NewServer(d, nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(ctx, l) }) // until the test ends
	t.Cleanup(func() {
		cancel()
		served.Wait()
		l.Close()
		os.RemoveAll(dir)
	})
	return socket
}

func (p *peeker) memoryChanged(m *vhostuser.Memory) {
	regions := m.Regions()
	p.memory.Store(&regions)
	m.Retain()
	if earlier := p.kept.Swap(m); earlier != nil {
		earlier.Release()
	}
}

// sees says whether a guest physical address is in the backend's memory.
func (p *peeker) sees(addr uint64) bool {
	if regions := p.memory.Load(); regions != nil {
		for _, r := range *regions {
			if addr >= r.Addr && addr-r.Addr < r.Size {
				return true
			}
		}
	}
	return false
}

// rawWindow is a mapping of a hint window. It stays until the test ends.
type rawWindow struct {
	t     testing.TB
	mem   []byte
	done  int
	seen  uint64 // the newest request
	peeks uint64 // the newest peek
}

// pageSize is the size of the pages that a peek tells of, in bytes.
const pageSize = 1 << freeset.FrameShift

// smallWindow has 256 slots, or room for the bits of 32768 pages.
const smallWindow = 2 * protocol.WindowHeaderSize

// open makes the window of a new connection, and returns the reply with it.
func (p *peeker) open(t testing.TB, payload []byte) ([]byte, []int, error) {
	terms, err := window.Agree(payload, p.features)
	if err != nil {
		return nil, nil, err
	}
	w, err := window.New(smallWindow, terms)
	if err != nil {
		return nil, nil, err
	}
	p.ends = append(p.ends, func() { w.Close() })
	fds := w.FDs()
	mem, err := unix.Mmap(fds[0], 0, smallWindow, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	p.ends = append(p.ends, func() { unix.Munmap(mem) })
	p.window.Store(&rawWindow{t: t, mem: mem, done: fds[2]})
	return w.Reply(), fds, nil
}

func (w *rawWindow) get64(at int) uint64    { return binary.LittleEndian.Uint64(w.mem[at:]) }
func (w *rawWindow) get32(at int) uint32    { return binary.LittleEndian.Uint32(w.mem[at:]) }
func (w *rawWindow) put64(at int, v uint64) { binary.LittleEndian.PutUint64(w.mem[at:], v) }
func (w *rawWindow) put32(at int, v uint32) { binary.LittleEndian.PutUint32(w.mem[at:], v) }

// signal wakes QEMU.
func (w *rawWindow) signal() {
	_, err := unix.Write(w.done, binary.LittleEndian.AppendUint64(nil, 1))
	if err != nil {
		w.t.Error(os.NewSyscallError("write", err))
	}
}

// putRanges writes ranges into the slots.
func (w *rawWindow) putRanges(ranges []freeset.Range) {
	for i, r := range ranges {
		w.put64(protocol.WindowHeaderSize+i*protocol.WindowRangeSize, r.GPA)
		w.put64(protocol.WindowHeaderSize+i*protocol.WindowRangeSize+8, r.Length)
	}
}

// peek writes a peek into the window, and does not wait for the answer.
func (w *rawWindow) peek(number, generation, count uint64, ranges ...freeset.Range) {
	w.putRanges(ranges)
	w.put64(protocol.WindowPeekGenerationOffset, generation)
	w.put64(protocol.WindowPeekCountOffset, count)
	w.put64(protocol.WindowPeekNumberOffset, number)
	w.signal()
}

// answered says whether the peek with this number is the last that was answered.
func (w *rawWindow) answered(number uint64) bool {
	return w.get64(protocol.WindowPeekAnsweredOffset) == number
}

// publish answers the newest request.
func (w *rawWindow) publish(status protocol.AnswerStatus, ranges ...freeset.Range) {
	w.putRanges(ranges)
	var bytes uint64
	for _, r := range ranges {
		bytes += r.Length
	}
	w.put32(protocol.WindowStatusOffset, uint32(status))
	w.put64(protocol.WindowRangeCountOffset, uint64(len(ranges)))
	w.put64(protocol.WindowRangeBytesOffset, bytes)
	w.put64(protocol.WindowDoneGenerationOffset, w.seen)
	w.signal()
}

// awaitAsked waits until QEMU asks, and returns the window with the question.
func (m *machine) awaitAsked(p *peeker) *rawWindow {
	m.t.Helper()
	var w *rawWindow
	m.await("QEMU asks", func() bool {
		w = p.window.Load()
		return w != nil && w.get64(protocol.WindowAskGenerationOffset) != w.seen
	})
	w.seen = w.get64(protocol.WindowAskGenerationOffset)
	return w
}

// written peeks, and returns the pages that were written, each by its address.
func (m *machine) written(w *rawWindow, ranges ...freeset.Range) []uint64 {
	m.t.Helper()
	w.peeks++
	w.peek(w.peeks, w.seen, uint64(len(ranges)), ranges...)
	m.await("the peek is answered", func() bool { return w.answered(w.peeks) })
	if status := w.get32(protocol.WindowPeekStatusOffset); status != 0 {
		m.t.Fatalf("a peek has status %d", status)
	}
	bits := w.mem[protocol.WindowHeaderSize+len(ranges)*protocol.WindowRangeSize:]
	var pages []uint64
	i := 0
	for _, r := range ranges {
		for at := uint64(0); at < r.Length; at += pageSize {
			if bits[i/8]>>(i%8)&1 != 0 {
				pages = append(pages, r.GPA+at)
			}
			i++
		}
	}
	return pages
}

// awaitConnectedTo waits until QEMU has fetched a window.
func (m *machine) awaitConnectedTo(p *peeker) {
	m.t.Helper()
	m.await("QEMU has a window", func() bool { return p.window.Load() != nil })
}

// awaitSees waits until the backend sees a guest physical address.
func (m *machine) awaitSees(p *peeker, addr uint64) {
	m.t.Helper()
	m.await("the backend has the memory", func() bool { return p.sees(addr) })
}

// aWhile is how long a test watches that QEMU does not do something.
const aWhile = 500 * time.Millisecond
