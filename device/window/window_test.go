// SPDX-License-Identifier: Apache-2.0

package window

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/device/window/windowtest"
)

const (
	minSize = protocol.WindowMinSize
	known   = protocol.WindowFeatureOutcome | protocol.WindowFeaturePeek |
		protocol.WindowFeatureClasses
)

// mustPair makes a window of the newest version, and QEMU's end of it.
func mustPair(t *testing.T, size int) (*Window, *windowtest.Frontend) {
	t.Helper()
	return mustPairOf(t, size, windowtest.Request(known))
}

func mustPairOf(t *testing.T, size int, request []byte) (*Window, *windowtest.Frontend) {
	t.Helper()
	terms, err := Agree(request, known)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(size, terms)
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
	return w, windowtest.OpenReply(t, w.Reply(), w.FDs())
}

func TestNewWindowIsSealedAndHasAHeader(t *testing.T) {
	w, f := mustPair(t, minSize)
	if magic, version, capacity := f.Word32(0), f.Word32(4), f.Word64(8); magic != 0x50504246 ||
		version != 2 || capacity != 256 {
		t.Errorf("header is %#x version %d capacity %d", magic, version, capacity)
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
	for _, size := range []int{0, minSize / 2, minSize + 1, -minSize, protocol.WindowMaxSize + 4096} {
		if _, err := New(size, Terms{Version: 2}); err == nil {
			t.Errorf("size %d was accepted", size)
		}
	}
}

func TestRequestAndAnswerCrossTheWindow(t *testing.T) {
	w, f := mustPair(t, minSize)
	binary.LittleEndian.PutUint64(f.Mem[protocol.WindowAskDeadlineOffset:], 12345)
	binary.LittleEndian.PutUint64(f.Mem[protocol.WindowAskGenerationOffset:], 7)
	binary.LittleEndian.PutUint64(f.Mem[protocol.WindowCancelGenerationOffset:], 6)
	f.Signal()
	if err := w.WaitAsk(); err != nil {
		t.Fatal(err)
	}
	want := Request{Generation: 7, DeadlineNS: 12345, Cancelled: 6, NeedsOrder: true}
	if got := w.Request(); got != want {
		t.Fatalf("request %+v, want %+v", got, want)
	}
	free := w.WriteRanges(mustFree(t, freeset.Block{First: 16, Count: 16},
		freeset.Block{First: 1024, Count: 1024}))
	if free != (Written{2, 1040 << 12}) {
		t.Errorf("wrote %+v", free)
	}
	if f.Word64(0x80) != 0 {
		t.Error("the answer is there before it was published")
	}
	w.Publish(7, Answer{Written: free, Truncated: true})
	for off, want := range map[int]uint64{
		0x80: 7, 0x88: 1 << 32, 0x90: 2, 0x98: 1040 << 12, // 0x88: ok, TRUNCATED
		0x1000: 16 << 12, 0x1008: 16 << 12, 0x1010: 1024 << 12, 0x1018: 1024 << 12,
	} {
		if got := f.Word64(off); got != want {
			t.Errorf("field at %#x is %#x, want %#x", off, got, want)
		}
	}
	if _, err := unix.Read(w.done, make([]byte, 8)); err != nil {
		t.Errorf("done was not raised: %v", err)
	}
}

func TestPhasesCrossTheWindowByName(t *testing.T) {
	answer := Answer{
		Source: "driver",
		Phases: []source.Phase{
			{Name: "wakeup", Time: time.Microsecond}, {Name: "walk", Time: 2 * time.Microsecond},
			{Name: "transfer", Time: 3 * time.Microsecond}, {Name: "decode", Time: time.Hour * 9999},
			{Name: "more", Time: -1},
		},
		Details: []source.Detail{{Name: "hold-max-us", Value: 5}, {Name: "holds", Value: 6}},
	}
	t.Run("version 2", func(t *testing.T) {
		w, f := mustPair(t, minSize)
		w.Publish(1, answer)
		want := map[string]uint64{
			"wakeup": 1, "walk": 2, "transfer": 3, "decode": 9999 * 3600e6, "more": 0,
			"hold-max-us": 5, "holds": 6,
		}
		if diff := cmp.Diff(want, f.Entries()); diff != "" {
			t.Error(diff)
		}
		if f.Source() != "driver" {
			t.Errorf("source is %q", f.Source())
		}
		w.Publish(2, Answer{Status: protocol.AnswerNoDriver})
		if f.Source() != "" || len(f.Entries()) != 0 {
			t.Errorf("an answer without a source has source %q and entries %v",
				f.Source(), f.Entries())
		}
	})
	t.Run("version 1", func(t *testing.T) {
		w, f := mustPairOf(t, minSize, nil)
		if f.Word32(4) != 1 {
			t.Errorf("version %d", f.Word32(4))
		}
		w.Publish(1, answer)
		for i, want := range []uint32{1, 2, 3, 1<<32 - 1, 5, 6} {
			if got := f.Word32(0xa0 + 4*i); got != want {
				t.Errorf("time %d is %d, want %d", i, got, want)
			}
		}
		if f.Source() != "" {
			t.Error("a window of version 1 has a source")
		}
	})
}

func TestBothSidesAgreeOnWhatBothKnow(t *testing.T) {
	for _, tc := range []struct {
		name    string
		request []byte
		want    Terms
		reply   int
	}{
		{"a frontend of version 1", nil, Terms{Version: 1}, 16},
		{"a payload that says version 1", []byte{0: 1, 15: 0}, Terms{Version: 1}, 16},
		{"version 2", windowtest.Request(0), Terms{Version: 2}, 24},
		{"version 2 with outcomes", windowtest.Request(1), Terms{Version: 2, Features: 1}, 24},
		{"a later version", append([]byte{9}, windowtest.Request(1<<63 | 1)[1:]...),
			Terms{Version: 2, Features: 1}, 24},
		{"a longer payload", append(windowtest.Request(1), 1, 2, 3),
			Terms{Version: 2, Features: 1}, 24},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Agree(tc.request, known)
			if err != nil || got != tc.want {
				t.Fatalf("got %+v, %v, want %+v", got, err, tc.want)
			}
			w, f := mustPairOf(t, minSize, tc.request)
			shown := Terms{Version: f.Word32(4), Features: f.Word64(0x10)}
			if n := len(w.Reply()); n != tc.reply || shown != tc.want {
				t.Errorf("a reply of %d bytes, %+v", n, shown)
			}
		})
	}
	for name, request := range map[string][]byte{
		"a part of a payload": {2, 0, 0}, "version 0": make([]byte, 16),
	} {
		if _, err := Agree(request, known); !errors.Is(err, protocol.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

func TestOutcomesCrossTheWindow(t *testing.T) {
	w, f := mustPair(t, minSize)
	if got := w.Outcome(); got != (Outcome{}) {
		t.Errorf("a new window has outcome %+v", got)
	}
	f.Tell(3, protocol.MigrationFailed, 2, 4096)
	want := Outcome{
		Number: 1, Generation: 3, Result: protocol.MigrationFailed, Hints: 2, Skipped: 4096,
		Order: protocol.OrderUsed, Hybrid: 2,
	}
	if got := w.Outcome(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w, f = mustPairOf(t, minSize, windowtest.Request(0))
	f.Tell(3, protocol.MigrationFailed, 2, 4096)
	if got := w.Outcome(); got != (Outcome{}) {
		t.Errorf("an outcome without the feature: %+v", got)
	}
}

func TestPeeksCrossTheWindow(t *testing.T) {
	w, f := mustPair(t, minSize)
	pages := []freeset.Range{{GPA: 0x1000, Length: 0x5000}, {GPA: 0x10000, Length: 0x4000}}
	n, err := w.Peek(7, pages)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := w.Peeked(n); ok || err != nil {
		t.Fatalf("a peek that nobody answered: %v, %v", ok, err)
	}
	generation, asked := f.Peek()
	if diff := cmp.Diff(pages, asked); generation != 7 || diff != "" {
		t.Fatalf("the frontend sees request %d and %s", generation, diff)
	}
	f.AnswerPeek(0, 0b1_0001_0010, 0)
	written, ok, err := w.Peeked(n)
	if want := []byte{0b0001_0010, 1}; !ok || err != nil || !bytes.Equal(written, want) {
		t.Fatalf("written %b, %v, %v; want %b", written, ok, err, want)
	}
	if n, err = w.Peek(7, pages[:1]); err != nil {
		t.Fatal(err)
	}
	f.Peek()
	f.AnswerPeek(2, 0, 0)
	if _, ok, err := w.Peeked(n); !ok || err == nil {
		t.Fatalf("a peek that failed: %v, %v", ok, err)
	}
	if _, ok, _ := w.Peeked(n - 1); ok {
		t.Fatal("an older peek has an answer")
	}
}

func TestImpossiblePeeksAreRefused(t *testing.T) {
	w, _ := mustPair(t, minSize)
	all := []freeset.Range{{GPA: 0, Length: 4096 * 8 * (4096 - 16)}}
	if _, err := w.Peek(1, all); err != nil {
		t.Errorf("as many pages as there is room for: %v", err)
	}
	all[0].Length += 4096
	if _, err := w.Peek(1, all); !errors.Is(err, ErrPeekRoom) {
		t.Errorf("a page more: %v, want ErrPeekRoom", err)
	}
	w, _ = mustPairOf(t, minSize, windowtest.Request(protocol.WindowFeatureOutcome))
	if _, err := w.Peek(1, all); !errors.Is(err, ErrNoPeek) || w.CanPeek() {
		t.Errorf("without the feature: %v, want ErrNoPeek", err)
	}
}

// mustFree makes a set over a GiB.
func mustFree(t *testing.T, blocks ...freeset.Block) *freeset.Set {
	t.Helper()
	free := freeset.New([]freeset.Range{{GPA: 0, Length: 1 << 30}})
	if _, _, err := free.Add(blocks, false); err != nil {
		t.Fatal(err)
	}
	return free
}

func TestTooManyRangesKeepTheLargest(t *testing.T) {
	w, _ := mustPair(t, minSize) // 256 slots
	var blocks []freeset.Block
	for i := range uint64(300) {
		n := uint64(1)
		if i%3 == 0 {
			n = 4
		}
		blocks = append(blocks, freeset.Block{First: i * 16, Count: n})
	}
	if got := w.WriteRanges(mustFree(t, blocks...)); got != (Written{100, 400 << 12}) {
		t.Fatalf("wrote %+v, want the 100 ranges of 4 frames", got)
	}
}

func TestCloseEndsWaitAsk(t *testing.T) {
	w, _ := mustPair(t, minSize)
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
	w, f := mustPair(t, minSize)
	if err := unix.SetNonblock(w.askFD, false); err != nil {
		t.Fatal(err)
	}
	errc := make(chan error)
	go func() { errc <- w.WaitAsk() }()
	f.Signal()
	if err := <-errc; err != nil {
		t.Fatal(err)
	}
	go func() { errc <- w.WaitAsk() }()
	time.Sleep(20 * time.Millisecond) // let WaitAsk block
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

// The device calls Publish with its mutex held, so Publish must not block.
func TestPublishDoesNotWaitForTheFrontend(t *testing.T) {
	w, _ := mustPair(t, minSize)
	full := binary.LittleEndian.AppendUint64(nil, 1<<64-2)
	if _, err := unix.Write(w.done, full); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(w.done, false); err != nil {
		t.Fatal(err)
	}
	published := make(chan struct{})
	go func() {
		defer close(published)
		w.Publish(1, Answer{Status: protocol.AnswerDisabled})
	}()
	select {
	case <-published:
	case <-time.After(10 * time.Second):
		t.Fatal("Publish waits until the frontend reads done")
	}
}

// Where there is no preadv2 the counter is read when it is readable. It never blocks, though the
// descriptor is in blocking mode.
func TestACounterIsDrainedWithoutPreadv2(t *testing.T) {
	fd, err := unix.Eventfd(2, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, want := range []bool{true, false} {
		if done, err := drainReadable(fd); done != want || err != nil {
			t.Errorf("drained: %v, %v, want %v", done, err, want)
		}
	}
}
