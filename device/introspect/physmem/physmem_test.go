// SPDX-License-Identifier: Apache-2.0

package physmem

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

const page = 4096

// mustMemfd returns a memfd of size bytes that is all one hole.
func mustMemfd(t *testing.T, size int64) FD {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return FD(fd)
}

func mustWrite(t *testing.T, fd FD, offset int64, content []byte) {
	t.Helper()
	if _, err := unix.Pwrite(int(fd), content, offset); err != nil {
		t.Fatal(err)
	}
}

// blocks returns how much of the file is allocated, in units of 512 bytes.
func blocks(t *testing.T, fd FD) int64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Fstat(int(fd), &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks
}

func mustMemory(t *testing.T, regions ...Region) *Memory {
	t.Helper()
	m, err := New(regions)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestReadingAllocatesNoHoles(t *testing.T) {
	fd := mustMemfd(t, 64*page)
	mustWrite(t, fd, 10*page, []byte("data"))
	before := blocks(t, fd)
	m := mustMemory(t, Region{GPA: 0, Size: 64 * page, Source: fd})

	all := bytes.Repeat([]byte{0xff}, 64*page)
	if err := m.Read(all, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(all[:10*page], make([]byte, 10*page)) || string(all[10*page:][:4]) != "data" {
		t.Fatal("holes do not read as zeroes")
	}
	var ranges [][2]uint64
	err := EachData(m.Regions()[0], func(gpa, size uint64) error {
		ranges = append(ranges, [2]uint64{gpa, size})
		return nil
	})
	if err != nil || len(ranges) != 1 || ranges[0] != [2]uint64{10 * page, page} {
		t.Fatalf("data %v, %v", ranges, err)
	}
	if touched, err := m.Touched(); err != nil || touched != page {
		t.Errorf("%d bytes were touched, %v", touched, err)
	}
	if after := blocks(t, fd); after != before || before == 0 {
		t.Fatalf("the file grew from %d to %d blocks", before, after)
	}
}

func TestReadCrossesRegions(t *testing.T) {
	low, high := mustMemfd(t, 4*page), mustMemfd(t, 8*page)
	mustWrite(t, low, 4*page-2, []byte("ab"))
	mustWrite(t, high, 2*page, []byte("cd"))
	m := mustMemory(t,
		Region{GPA: 0x10000 + 4*page, Size: 2 * page, Source: high, Offset: 2 * page},
		Region{GPA: 0x10000, Size: 4 * page, Source: low})
	got := make([]byte, 4)
	if err := m.Read(got, 0x10000+4*page-2); err != nil || string(got) != "abcd" {
		t.Fatalf("%q, %v", got, err)
	}
	for name, at := range map[string]uint64{
		"before": 0xffff, "behind": 0x10000 + 6*page, "across the end": 0x10000 + 6*page - 1,
		"far": 1 << 63,
	} {
		if err := m.Read(got, at); !errors.Is(err, ErrNoRAM) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !m.Contains(0x10000, 6*page) || m.Contains(0x10000, 6*page+1) || m.Contains(0, 1) {
		t.Error("Contains is wrong about the ends")
	}
	if m.Size() != 6*page {
		t.Errorf("size %d", m.Size())
	}
}

func TestDataOfARegionWithinItsFile(t *testing.T) {
	fd := mustMemfd(t, 64*page)
	for _, at := range []int64{0, 9, 10, 30, 63} {
		mustWrite(t, fd, at*page, []byte{1})
	}
	r := Region{GPA: 1 << 32, Size: 25 * page, Source: fd, Offset: 10 * page}
	var got []uint64
	err := EachData(r, func(gpa, size uint64) error {
		got = append(got, (gpa-r.GPA)/page, size/page)
		return nil
	})
	if want := []uint64{0, 1, 20, 1}; err != nil || len(got) != 4 || got[0] != want[0] ||
		got[2] != want[2] ||
		got[3] != want[3] {
		t.Fatalf("%v, %v", got, err)
	}
	stop := errors.New("stop")
	if err := EachData(r, func(_, _ uint64) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("%v", err)
	}
}

func TestFileShorterThanItsRegion(t *testing.T) {
	m := mustMemory(t, Region{Size: 2 * page, Source: mustMemfd(t, page)})
	if err := m.Read(make([]byte, 2*page), 0); err == nil {
		t.Fatal("memory behind the end of the file was read")
	}
}

func TestInvalidRegionsAreRefused(t *testing.T) {
	source := bytes.NewReader(nil)
	for name, regions := range map[string][]Region{
		"overlap": {
			{GPA: 0, Size: 2 * page, Source: source}, {GPA: page, Size: page, Source: source},
		},
		"empty":     {{GPA: 0, Source: source}},
		"no source": {{Size: page}},
		"wraps":     {{GPA: 1<<64 - page, Size: 2 * page, Source: source}},
		"too far":   {{GPA: 1 << 52, Size: page, Source: source}},
		"offset":    {{Size: page, Offset: -1, Source: source}},
		"too many":  make([]Region, maxRegions+1),
	} {
		if _, err := New(regions); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
