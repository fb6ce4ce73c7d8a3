// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/introspect/pageview"
)

const mib = 1 << 20

// kinds has, for each kind of page, a function that makes such pages. They stay until the
// program ends.
var kinds = map[string]func() error{
	"anon":     func() error { return second(anonymous(16 * mib)) },
	"fragment": fragment,
	"thp":      hugePages,
	"shmem":    sharedMemory,
	"hugetlb":  hugetlb,
	"ksm":      mergedPages,
	"file":     diskCache,
	"swap":     swapCache,
}

func second(_ []byte, err error) error { return err }

// load makes pages, and reports the result for each kind: not every kernel has every kind.
func load(names []string) []string {
	var said []string
	for _, name := range names {
		err := fmt.Errorf("no such kind")
		if makeKind := kinds[name]; makeKind != nil {
			err = makeKind()
		}
		if err != nil {
			said = append(
				said,
				fmt.Sprintf("%s: %v", name, strings.ReplaceAll(err.Error(), "\n", " ")),
			)
		}
	}
	return append(said, "loaded")
}

// fragment allocates memory, and frees runs of 1 to 15 pages. After each run it keeps as many
// pages.
func fragment() error {
	mem, err := anonymous(32 * mib)
	if err != nil {
		return err
	}
	run := 1
	for at := 0; at+2*run*pageview.PageSize <= len(mem); {
		if err := unix.Madvise(mem[at:][:run*pageview.PageSize], unix.MADV_DONTNEED); err != nil {
			return err
		}
		at += 2 * run * pageview.PageSize
		run = run%15 + 1
	}
	return nil
}

func hugePages() error {
	mem, err := unix.Mmap(
		-1,
		0,
		16*mib,
		unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS,
	)
	if err != nil {
		return err
	}
	if err := unix.Madvise(mem, unix.MADV_HUGEPAGE); err != nil {
		return err
	}
	touch(mem, 1)
	return nil
}

func sharedMemory() error {
	fd, err := unix.MemfdCreate("shared", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, 8*mib); err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, 8*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	touch(mem, 1)
	return unix.Munmap(mem) // in the file, and mapped nowhere
}

func hugetlb() error {
	if err := os.WriteFile("/proc/sys/vm/nr_hugepages", []byte("6"), 0); err != nil {
		return err
	}
	mem, err := unix.Mmap(-1, 0, 4*mib, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
	if err != nil {
		return err
	}
	touch(mem, 1)
	return nil
}

// mergedPages waits until the kernel has merged some pages.
func mergedPages() error {
	mem, err := anonymous(4 * mib)
	if err != nil {
		return err
	}
	for at := 0; at < len(mem); at += pageview.PageSize {
		binary.LittleEndian.PutUint64(mem[at:], uint64(at/pageview.PageSize%8+1))
	}
	if err := unix.Madvise(mem, unix.MADV_MERGEABLE); err != nil {
		return err
	}
	const dir = "/sys/kernel/mm/ksm/"
	for name, value := range map[string]string{
		"pages_to_scan": "10000", "sleep_millisecs": "20", "run": "1",
	} {
		if err := os.WriteFile(dir+name, []byte(value), 0); err != nil {
			return err
		}
	}
	for range 500 {
		text, err := os.ReadFile(dir + "pages_sharing")
		if err != nil {
			return err
		}
		if n, _ := strconv.Atoi(strings.TrimSpace(string(text))); n > 500 {
			// The scanner would go on between the view and the pause.
			return os.WriteFile(dir+"run", []byte("0"), 0)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("the kernel merged nothing")
}

// diskCache reads a disk, maps a part of what was read, and leaves another part
// dirty.
func diskCache() error {
	fd, err := unix.Open("/dev/vda", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// Dirty pages then stay dirty. Changing either setting triggers one writeback.
	for _, name := range []string{"dirty_writeback_centisecs", "dirty_expire_centisecs"} {
		if err := os.WriteFile("/proc/sys/vm/"+name, []byte("360000"), 0); err != nil {
			return err
		}
	}
	time.Sleep(200 * time.Millisecond)
	buf := make([]byte, mib)
	for at := int64(0); at < 16*mib; at += mib {
		if _, err := unix.Pread(fd, buf, at); err != nil {
			return err
		}
	}
	mem, err := unix.Mmap(fd, 0, 2*mib, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	var sum byte
	for at := 0; at < len(mem); at += pageview.PageSize {
		sum += mem[at]
	}
	buf[0] = sum
	_, err = unix.Pwrite(fd, buf, 8*mib)
	return err
}

// swapCache moves memory to a swap device and reads half of it back, which
// leaves it in both places.
func swapCache() error {
	const device, size = "/dev/vdb", 16 * mib
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	header := make([]byte, pageview.PageSize)
	binary.LittleEndian.PutUint32(header[1024:], 1)                        // version
	binary.LittleEndian.PutUint32(header[1028:], size/pageview.PageSize-1) // last page
	copy(header[len(header)-10:], "SWAPSPACE2")
	_, err = f.WriteAt(header, 0)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := swapOn(device); err != nil {
		return err
	}
	mem, err := anonymous(8 * mib)
	if err != nil {
		return err
	}
	for at := range mem {
		mem[at] = byte(at * 31 >> 7) // no page of zeroes, which is not swapped out
	}
	if err := unix.Madvise(mem, unix.MADV_PAGEOUT); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	var sum byte
	for at := 0; at < len(mem)/2; at += pageview.PageSize {
		sum += mem[at]
	}
	header[0] = sum
	return nil
}
