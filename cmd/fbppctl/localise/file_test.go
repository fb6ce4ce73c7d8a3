// SPDX-License-Identifier: Apache-2.0

package localise

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/placement"
)

// newMemory makes a memfd, and returns it as a guest's memory.
func newMemory(t *testing.T, size int64) (*os.File, VM) {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "guest")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f, memoryOf(t, f, size)
}

// memoryOf is a guest with one region, which is all of a file.
func memoryOf(t *testing.T, f *os.File, size int64) VM {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	return VM{PID: os.Getpid(), Memory: &placement.Memory{Regions: []placement.Region{{
		Length: uint64(size), FD: int(f.Fd()), Device: stat.Dev, Inode: stat.Ino,
	}}}}
}

// write fills pages of a file with data.
func write(t *testing.T, f *os.File, first, count int64) {
	t.Helper()
	if _, err := f.WriteAt(make([]byte, count<<12), first<<12); err != nil {
		t.Fatal(err)
	}
}

// blocks returns how much of a file is allocated, in pages.
func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks >> 3
}

// firstNode returns the number of a node that has memory.
func firstNode(t *testing.T) int { return nodesWithMemory(t)[0] }

// All of it is counted, nothing is allocated, and what is in no range is left alone.
func TestHolesAndFreePagesAreLeftAlone(t *testing.T) {
	f, m := newMemory(t, 16<<20)
	write(t, f, 0, 100)
	write(t, f, 600, 1) // in the second chunk
	write(t, f, 2048, 512)
	m.Ranges = []placement.Ranges{
		{Class: placement.Hot, Ranges: []freeset.Range{{GPA: 10 << 12, Length: 1 << 12}}},
		{Class: placement.Other, Ranges: []freeset.Range{
			{GPA: 0, Length: 10 << 12}, {GPA: 50 << 12, Length: 1950 << 12},
			{GPA: 12 << 20, Length: 4 << 20},
		}},
	}
	r, err := Run(t.Context(), m, Options{Node: firstNode(t)})
	if err != nil {
		t.Fatal(err)
	}
	sum := func(class placement.Class) uint64 {
		c := r.Classes[class]
		return (c.Moved + c.There + c.Left) >> 12
	}
	if sum(placement.Hot) != 1 || sum(placement.Other) != 10+50+1 || sum(placement.Cold) != 0 {
		t.Errorf("the result is %+v", r)
	}
	if n := blocks(t, f); n != 613 {
		t.Errorf("%d pages are allocated, 613 were", n)
	}
}

// A page that is missing stays so, also one that was there a moment ago.
func TestNoFaultFillsAHole(t *testing.T) {
	f, m := newMemory(t, 1<<20)
	write(t, f, 0, 1)
	p, err := open(m.PID, m.Memory.Regions[0])
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for _, pages := range [][]byte{p.bytes[:8<<10], p.bytes[4<<10 : 8<<10]} {
		if err := unix.Madvise(pages, unix.MADV_POPULATE_READ); !errors.Is(err, unix.EFAULT) {
			t.Errorf("%d bytes with a hole: %v, want EFAULT", len(pages), err)
		}
	}
	if n := blocks(t, f); n != 1 {
		t.Errorf("%d pages are allocated, one was", n)
	}
}

func TestWhatIsNoGuestMemoryIsRefused(t *testing.T) {
	other, err := os.Open("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	pipe, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	for _, tc := range []struct {
		name, want string
		change     func(*VM)
	}{
		{"another file", "try again", func(m *VM) { m.Memory.Regions[0].Inode++ }},
		{"a descriptor that is closed", "still running", func(m *VM) {
			m.Memory.Regions[0].FD = 99999
		}},
		{"a process that has ended", "still running", func(m *VM) { m.PID = 1 << 30 }},
		{"a pipe", "is no file", func(m *VM) { *m = memoryOf(t, pipe, 1<<20) }},
		{"a file that is not in memory", "tmpfs or hugetlbfs", func(m *VM) {
			*m = memoryOf(t, other, 1<<20)
		}},
		{"no memory", "is not made of pages", func(m *VM) { m.Memory.Regions[0].Length = 0 }},
		{"half a page", "is not made of pages", func(m *VM) { m.Memory.Regions[0].Offset = 2048 }},
		{"an end that wraps", "is not made of pages", func(m *VM) {
			m.Memory.Regions[0].Offset, m.Memory.Regions[0].Length = 1<<63, 1<<63
		}},
		{"an end behind the file's", "ends at", func(m *VM) { m.Memory.Regions[0].Offset = 4096 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, m := newMemory(t, 1<<20)
			tc.change(&m)
			_, err := Run(t.Context(), m, Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestANodeWithoutMemoryIsRefused(t *testing.T) {
	for _, node := range []int{1000, maxNodes, -1} {
		_, m := newMemory(t, 1<<20)
		_, err := Run(t.Context(), m, Options{Node: node})
		if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "has_memory") {
			t.Errorf("node %d: %v", node, err)
		}
	}
}

func TestAMoveThatIsOverBeforeItBegins(t *testing.T) {
	f, m := newMemory(t, 1<<20)
	write(t, f, 0, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Ranges = []placement.Ranges{{Class: placement.Hot, Ranges: []freeset.Range{{Length: 4096}}}}
	r, err := Run(ctx, m, Options{Node: firstNode(t)})
	if !errors.Is(err, context.Canceled) || r.Total() != (Counts{}) {
		t.Errorf("%+v and %v", r, err)
	}
}
