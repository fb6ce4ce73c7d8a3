// SPDX-License-Identifier: Apache-2.0

package window

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
)

// frontend maps the window a second time, as QEMU does.
type frontend struct {
	mem       []byte
	ask, done int
}

func mustPair(t *testing.T, size int) (*Window, *frontend) {
	t.Helper()
	w, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if w.mem != nil {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	fds := w.FDs()
	mem, err := unix.Mmap(fds[0], 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return w, &frontend{mem: mem, ask: fds[1], done: fds[2]}
}

func (f *frontend) u64(off int) uint64 { return binary.LittleEndian.Uint64(f.mem[off:]) }
func (f *frontend) u32(off int) uint32 { return binary.LittleEndian.Uint32(f.mem[off:]) }

func TestWindowIsSealedAndSaysWhatItIs(t *testing.T) {
	w, f := mustPair(t, 2*HeaderSize)
	if f.u32(0) != 0x50504246 || f.u32(4) != 1 || f.u64(8) != 256 {
		t.Errorf("header is %#x version %d capacity %d", f.u32(0), f.u32(4), f.u64(8))
	}
	seals, err := unix.FcntlInt(uintptr(w.fd), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL; err != nil || seals != want {
		t.Errorf("seals %#x, %v; want %#x", seals, err, want)
	}
	if err := unix.Ftruncate(w.fd, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncating the window: %v, want EPERM", err)
	}
}

func TestSizesThatAreRefused(t *testing.T) {
	for _, size := range []int{0, HeaderSize, 2*HeaderSize + 1, -HeaderSize, MaxSize + HeaderSize} {
		if _, err := New(size); err == nil {
			t.Errorf("size %d was accepted", size)
		}
	}
}

func TestRequestAndAnswerCrossTheWindow(t *testing.T) {
	w, f := mustPair(t, 2*HeaderSize)
	binary.LittleEndian.PutUint64(f.mem[0x48:], 12345)
	binary.LittleEndian.PutUint64(f.mem[0x40:], 7)
	binary.LittleEndian.PutUint64(f.mem[0x50:], 6)
	if _, err := unix.Write(f.ask, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if err := w.WaitAsk(); err != nil {
		t.Fatal(err)
	}
	if got, want := w.Request(), (Request{Generation: 7, DeadlineNS: 12345, Cancelled: 6}); got != want {
		t.Fatalf("request %+v, want %+v", got, want)
	}

	free := freeset.New([]freeset.Range{{GPA: 0, Length: 1 << 30}})
	for _, b := range [][2]uint64{{16, 16}, {1024, 1024}} {
		if err := free.Add(b[0], b[1], false); err != nil {
			t.Fatal(err)
		}
	}
	times := Times{Wakeup: 1, Walk: 2, Transfer: 3, Decode: 4, HoldMax: 5, Holds: 6}
	ranges, bytes := w.WriteRanges(free)
	if ranges != 2 || bytes != 1040<<12 {
		t.Errorf("wrote %d ranges of %d bytes", ranges, bytes)
	}
	if f.u64(0x80) != 0 {
		t.Error("the answer is there before it was published")
	}
	w.Publish(7, Answer{Ranges: ranges, Bytes: bytes, Truncated: true, Times: times})
	var n [8]byte
	if _, err := unix.Read(f.done, n[:]); err != nil || n[0] != 1 {
		t.Errorf("done reads %v, %v", n, err)
	}
	for off, want := range map[int]uint64{
		0x80: 7, 0x90: 2, 0x98: 1040 << 12,
		0x1000: 16 << 12, 0x1008: 16 << 12, 0x1010: 1024 << 12, 0x1018: 1024 << 12,
	} {
		if got := f.u64(off); got != want {
			t.Errorf("field at %#x is %#x, want %#x", off, got, want)
		}
	}
	if f.u32(0x88) != 0 || f.u32(0x8c) != 1 {
		t.Errorf("status %d, flags %d; want ok, TRUNCATED", f.u32(0x88), f.u32(0x8c))
	}
	for i := range 6 {
		if got := f.u32(0xa0 + 4*i); got != uint32(i+1) {
			t.Errorf("time %d is %d", i, got)
		}
	}
}

func TestTooManyRangesKeepTheLargest(t *testing.T) {
	w, _ := mustPair(t, 2*HeaderSize) // 256 slots
	free := freeset.New([]freeset.Range{{GPA: 0, Length: 1 << 30}})
	for i := range uint64(300) {
		n := uint64(1)
		if i%3 == 0 {
			n = 4
		}
		if err := free.Add(i*16, n, false); err != nil {
			t.Fatal(err)
		}
	}
	ranges, bytes := w.WriteRanges(free)
	if ranges != 100 || bytes != 400<<12 {
		t.Fatalf("wrote %d ranges of %d bytes, want the 100 ranges of 4 frames", ranges, bytes)
	}
}

func TestCloseEndsWaitAsk(t *testing.T) {
	w, _ := mustPair(t, 2*HeaderSize)
	errc := make(chan error)
	go func() { errc <- w.WaitAsk() }()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-errc; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("WaitAsk returned %v, want os.ErrClosed", err)
	}
}

// QEMU makes the descriptors that it receives blocking for a moment.
func TestCloseEndsWaitAskOfABlockingDescriptor(t *testing.T) {
	w, f := mustPair(t, 2*HeaderSize)
	if err := unix.SetNonblock(f.ask, false); err != nil {
		t.Fatal(err)
	}
	errc := make(chan error)
	go func() { errc <- w.WaitAsk() }()
	if _, err := unix.Write(f.ask, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if err := <-errc; err != nil {
		t.Fatal(err)
	}
	go func() { errc <- w.WaitAsk() }()
	time.Sleep(20 * time.Millisecond) // so that it waits, or has begun to read
	closed := make(chan error)
	go func() { closed <- w.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Close waits for a request")
	}
	if err := <-errc; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("WaitAsk returned %v, want os.ErrClosed", err)
	}
}

// Whoever holds the window holds the device's lock.
func TestPublishDoesNotWaitForTheFrontend(t *testing.T) {
	w, f := mustPair(t, 2*HeaderSize)
	full := binary.LittleEndian.AppendUint64(nil, 1<<64-2)
	if _, err := unix.Write(f.done, full); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(f.done, false); err != nil {
		t.Fatal(err)
	}
	published := make(chan struct{})
	go func() {
		defer close(published)
		w.Publish(1, Answer{Status: StatusDisabled})
	}()
	select {
	case <-published:
	case <-time.After(10 * time.Second):
		t.Fatal("Publish waits until the frontend reads done")
	}
}
