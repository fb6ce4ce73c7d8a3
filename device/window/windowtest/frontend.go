// SPDX-License-Identifier: Apache-2.0

// Package windowtest plays QEMU's end of the hint window for tests.
package windowtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// Request returns the payload with which a frontend of version 2 asks for a
// window.
func Request(features uint64) []byte {
	p := binary.LittleEndian.AppendUint32(nil, protocol.WindowVersion2)
	p = binary.LittleEndian.AppendUint32(p, 0)
	return binary.LittleEndian.AppendUint64(p, features)
}

// Frontend is QEMU's end of one window. Its methods are called one at a time, and
// fail the test on any error.
type Frontend struct {
	// Mem is the window itself, mapped as QEMU maps it, until the test ends.
	Mem []byte

	t         testing.TB
	ask, done int
	asked     uint64
	told      uint64
	peek      uint64
}

// Open opens a window by the descriptors of a reply: the memfd, ask and done. It
// duplicates them; the caller still owns its own.
func Open(t testing.TB, size int, fds []int) *Frontend {
	t.Helper()
	f := &Frontend{t: t}
	if len(fds) != 3 {
		t.Fatalf("a window of %d descriptors, want 3", len(fds))
	}
	dup := func(i int) int {
		fd, err := unix.Dup(fds[i])
		f.must(err)
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	var err error
	f.Mem, err = unix.Mmap(dup(0), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	f.must(err)
	t.Cleanup(func() { unix.Munmap(f.Mem) })
	f.ask, f.done = dup(1), dup(2)
	return f
}

// OpenReply opens the window of a reply. It duplicates the descriptors.
func OpenReply(t testing.TB, payload []byte, fds []int) *Frontend {
	t.Helper()
	if len(payload) < protocol.WindowReplySize1 {
		t.Fatalf("window reply has %d bytes", len(payload))
	}
	return Open(t, int(binary.LittleEndian.Uint64(payload[8:])), fds)
}

func (f *Frontend) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// Word32 reads a field.
func (f *Frontend) Word32(off int) uint32 { return binary.LittleEndian.Uint32(f.Mem[off:]) }

// Word64 reads a field.
func (f *Frontend) Word64(off int) uint64 { return binary.LittleEndian.Uint64(f.Mem[off:]) }

func (f *Frontend) put32(off int, v uint32) { binary.LittleEndian.PutUint32(f.Mem[off:], v) }
func (f *Frontend) put64(off int, v uint64) { binary.LittleEndian.PutUint64(f.Mem[off:], v) }

// Asked returns the number of the newest request.
func (f *Frontend) Asked() uint64 { return f.asked }

// Ask makes a request whose answer is due in d. It does not wait.
func (f *Frontend) Ask(d time.Duration) {
	f.t.Helper()
	f.askWith(0, d)
}

// AskPaused is Ask for a guest that does not run.
func (f *Frontend) AskPaused(d time.Duration) {
	f.t.Helper()
	f.askWith(protocol.WindowAskPaused, d)
}

// AskFor is Ask of a frontend that says whether an order is of use.
func (f *Frontend) AskFor(order bool, d time.Duration) {
	f.t.Helper()
	var flags uint32
	if order {
		flags = protocol.WindowAskOrder
	}
	f.askWith(flags, d)
}

func (f *Frontend) askWith(flags uint32, d time.Duration) {
	f.t.Helper()
	var now unix.Timespec
	f.must(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	f.asked++
	f.put32(protocol.WindowAskFlagsOffset, flags)
	f.put64(protocol.WindowAskDeadlineOffset, uint64(now.Nano()+d.Nanoseconds()))
	f.put64(protocol.WindowAskGenerationOffset, f.asked)
	f.Signal()
}

// Boot tells that the machine was reset.
func (f *Frontend) Boot() {
	f.t.Helper()
	f.put32(protocol.WindowBootOffset, f.Word32(protocol.WindowBootOffset)+1)
	f.Signal()
}

// Vmcoreinfo tells where the guest says that its vmcoreinfo note is.
func (f *Frontend) Vmcoreinfo(gpa uint64) {
	f.t.Helper()
	f.put64(protocol.WindowVmcoreinfoOffset, gpa)
	f.Signal()
}

// Cancel cancels the newest request.
func (f *Frontend) Cancel() {
	f.t.Helper()
	f.put64(protocol.WindowCancelGenerationOffset, f.asked)
	f.Signal()
}

// Signal wakes the backend.
func (f *Frontend) Signal() {
	f.t.Helper()
	_, err := unix.Write(f.ask, binary.LittleEndian.AppendUint64(nil, 1))
	f.must(err)
}

// Tell writes the outcome of a migration. skipped is in bytes.
func (f *Frontend) Tell(
	generation uint64, result protocol.MigrationResult, hints uint32, skipped uint64,
) {
	f.t.Helper()
	f.put64(protocol.WindowOutcomeGenerationOffset, generation)
	f.put32(protocol.WindowOutcomeMigrationOffset, uint32(result))
	f.put32(protocol.WindowOutcomeHintsOffset, hints)
	f.put64(protocol.WindowOutcomeSkippedOffset, skipped)
	f.put32(protocol.WindowOutcomeOrderOffset, uint32(protocol.OrderUsed))
	f.put32(protocol.WindowOutcomeHybridOffset, 2)
	f.told++
	f.put64(protocol.WindowOutcomeNumberOffset, f.told)
	f.Signal()
}

// Answer is the backend's answer to a request.
type Answer struct {
	Status    protocol.AnswerStatus
	Truncated bool
	Ranges    []freeset.Range
	Bytes     uint64
	Hot, Cold []freeset.Range // CLASSES
}

// Answer waits for the answer to the newest request.
func (f *Frontend) Answer(patience time.Duration) Answer {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for f.Word64(protocol.WindowDoneGenerationOffset) != f.asked {
		left := time.Until(deadline)
		if left <= 0 {
			f.t.Fatalf("request %d was not answered", f.asked)
		}
		f.wait(left)
	}
	a := Answer{
		Status:    protocol.AnswerStatus(f.Word32(protocol.WindowStatusOffset)),
		Truncated: f.Word32(protocol.WindowFlagsOffset)&protocol.WindowTruncated != 0,
		Bytes:     f.Word64(protocol.WindowRangeBytesOffset),
	}
	slots := f.Word64(protocol.WindowCapacityOffset)
	at := protocol.WindowHeaderSize
	for _, list := range []struct {
		count int
		to    *[]freeset.Range
	}{
		{protocol.WindowRangeCountOffset, &a.Ranges}, {protocol.WindowHotCountOffset, &a.Hot},
		{protocol.WindowColdCountOffset, &a.Cold},
	} {
		n := f.Word64(list.count)
		if n > slots {
			f.t.Fatalf("%d ranges in %d slots", n, slots)
		}
		slots -= n
		*list.to = f.ranges(at, int(n))
		at += int(n) * protocol.WindowRangeSize
	}
	return a
}

// ranges reads n ranges.
func (f *Frontend) ranges(at, n int) (found []freeset.Range) {
	for ; n > 0; n-- {
		found = append(found, freeset.Range{GPA: f.Word64(at), Length: f.Word64(at + 8)})
		at += protocol.WindowRangeSize
	}
	return found
}

// wait waits for done, at most d, and resets its counter.
func (f *Frontend) wait(d time.Duration) {
	f.t.Helper()
	fds := []unix.PollFd{{Fd: int32(f.done), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, int(d.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
		f.t.Fatal(os.NewSyscallError("poll", err))
	}
	_, _ = unix.Read(f.done, make([]byte, 8)) // fails after a timeout; the caller checks
}

// Peek returns the ranges of the newest peek, and the request it belongs to.
func (f *Frontend) Peek() (generation uint64, pages []freeset.Range) {
	f.t.Helper()
	f.peek = f.Word64(protocol.WindowPeekNumberOffset)
	pages = f.ranges(protocol.WindowHeaderSize, int(f.Word64(protocol.WindowPeekCountOffset)))
	return f.Word64(protocol.WindowPeekGenerationOffset), pages
}

// AwaitPeek waits for a peek that is newer than the last one that Peek returned.
func (f *Frontend) AwaitPeek(patience time.Duration) (generation uint64, pages []freeset.Range) {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for f.Word64(protocol.WindowPeekNumberOffset) == f.peek {
		left := time.Until(deadline)
		if left <= 0 {
			f.t.Fatal("the backend does not peek")
		}
		f.wait(left)
	}
	return f.Peek()
}

// AnswerPeek answers the peek that Peek returned last. written is the bitmap, in
// words of 64 bits.
func (f *Frontend) AnswerPeek(status uint32, written ...uint64) {
	f.t.Helper()
	at := protocol.WindowHeaderSize +
		int(f.Word64(protocol.WindowPeekCountOffset))*protocol.WindowRangeSize
	for i, word := range written {
		f.put64(at+8*i, word)
	}
	f.put32(protocol.WindowPeekStatusOffset, status)
	f.put64(protocol.WindowPeekAnsweredOffset, f.peek)
	f.Signal()
}

// Entries returns the answer's phases and details, by name.
func (f *Frontend) Entries() map[string]uint64 {
	f.t.Helper()
	entries := make(map[string]uint64)
	for i := range f.Word32(protocol.WindowEntryCountOffset) {
		at := protocol.WindowEntriesOffset + int(i)*protocol.WindowEntrySize
		entries[f.name(at)] = f.Word64(at + protocol.WindowNameSize)
	}
	return entries
}

// Source returns the name of the source that answered.
func (f *Frontend) Source() string { return f.name(protocol.WindowSourceOffset) }

func (f *Frontend) name(at int) string {
	p := f.Mem[at : at+protocol.WindowNameSize]
	for i, c := range p {
		if c == 0 {
			return string(p[:i])
		}
	}
	return string(p)
}

// String implements fmt.Stringer.
func (a Answer) String() string {
	return fmt.Sprintf("%v, %d ranges of %d bytes", a.Status, len(a.Ranges), a.Bytes)
}
