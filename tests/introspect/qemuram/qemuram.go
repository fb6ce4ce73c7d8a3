// SPDX-License-Identifier: Apache-2.0

// Package qemuram finds the guest's memory of a running QEMU process, from its memfds alone.
// The machine has to be a q35.
package qemuram

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// Files are the files of a guest's memory, in the order in which QEMU opened
// them.
type Files []*os.File

// Open opens the memfds of a QEMU process.
func Open(pid int) (files Files, err error) {
	defer func() {
		if err != nil {
			files.Close()
		}
	}()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, link := range links {
		target, err := os.Readlink(link)
		n, bad := strconv.Atoi(filepath.Base(link))
		if err == nil && bad == nil && strings.HasPrefix(target, "/memfd:memory-backend-memfd") {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		f, err := os.Open(fmt.Sprintf("/proc/%d/fd/%d", pid, n))
		if err != nil {
			return files, fmt.Errorf("open guest memory: %w", err)
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("open guest memory: process %d has none in a memfd", pid)
	}
	return files, nil
}

// Close closes the files.
func (f Files) Close() error {
	var errs []error
	for _, file := range f {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}

// How a q35 machine lays memory out: from lowLimit on, what is above lowEnd is
// at 4 GiB (QEMU: hw/i386/pc_q35.c). The first MiB has a hole.
const (
	mib        = 1 << 20
	lowLimit   = 2816 * mib
	lowEnd     = 2048 * mib
	highStart  = 4096 * mib
	videoStart = 0xa0000
	videoEnd   = 0xc0000
)

// Regions returns the memory regions that QEMU would send to a vhost-user backend. Files
// beyond initial bytes are left out: they are of memory that was plugged in later.
func (f Files) Regions(initial uint64) ([]physmem.Region, error) {
	low := initial
	if initial >= lowLimit {
		low = lowEnd
	}
	var found []physmem.Region
	at := uint64(0) // in the machine's memory, files one after the other
	for _, file := range f {
		info, err := file.Stat()
		if err != nil {
			return nil, err
		}
		end := min(at+uint64(info.Size()), initial)
		for _, part := range []struct{ from, to, gpa uint64 }{
			{0, videoStart, 0}, {videoEnd, low, videoEnd}, {low, initial, highStart},
		} {
			from, to := max(part.from, at), min(part.to, end)
			if from < to {
				found = append(found, physmem.Region{
					GPA: from - part.from + part.gpa, Size: to - from,
					Source: physmem.FD(file.Fd()), Offset: int64(from - at),
				})
			}
		}
		at = end
	}
	return found, nil
}

// Size returns the size of all files in bytes.
func (f Files) Size() (bytes uint64, err error) {
	for _, file := range f {
		info, err := file.Stat()
		if err != nil {
			return 0, err
		}
		bytes += uint64(info.Size())
	}
	return bytes, nil
}
