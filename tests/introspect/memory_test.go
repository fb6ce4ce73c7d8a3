// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// How QEMU's q35 machine lays memory out: from lowLimit on, what is above
// lowEnd is at 4 GiB (hw/i386/pc_q35.c). The first MiB has a hole.
const (
	mib        = 1 << 20
	lowLimit   = 2816 * mib
	lowEnd     = 2048 * mib
	highStart  = 4096 * mib
	videoStart = 0xa0000
	videoEnd   = 0xc0000
)

// regions lays the files of memory out as the machine does, and as it would
// tell a vhost-user backend.
func regions(files []backing) []physmem.Region {
	var all uint64
	for _, b := range files {
		all += uint64(b.mib) * mib
	}
	low := all
	if all >= lowLimit {
		low = lowEnd
	}
	var found []physmem.Region
	at := uint64(0) // in the machine's memory, files one after the other
	add := func(b backing, from, to, gpa, base uint64) {
		if from = max(from, at); from < min(to, at+uint64(b.mib)*mib) {
			to = min(to, at+uint64(b.mib)*mib)
			found = append(found, physmem.Region{
				GPA: from - base + gpa, Size: to - from, Source: physmem.FD(b.file.Fd()), Offset: int64(from - at),
			})
		}
	}
	for _, b := range files {
		add(b, 0, videoStart, 0, 0)
		add(b, videoEnd, low, videoEnd, videoEnd)
		add(b, low, all, highStart, low)
		at += uint64(b.mib) * mib
	}
	return found
}

func (s *subject) mustMemory(t *testing.T, more ...physmem.Region) *physmem.Memory {
	t.Helper()
	mem, err := physmem.New(append(regions(s.backing), more...))
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

// blocks returns how much of the files is allocated.
func (s *subject) blocks(t *testing.T) (n int64) {
	t.Helper()
	for _, b := range s.backing {
		n += fileBlocks(t, b.file)
	}
	return n
}

func fileBlocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks
}
