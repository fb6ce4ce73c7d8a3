// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// refreshFile is read for its side effect: every CPU updates its counters,
	// and shortens its lists of free pages by a step (decay_pcp_high in
	// mm/page_alloc.c, Linux 6.7). A CPU does so each second by itself, but not
	// while it is idle.
	refreshFile = "/proc/sys/vm/stat_refresh"

	// Lists of CPUs that are left to their own tasks: two of the kernel's command
	// line, and one of cgroups, which changes while the guest runs (Linux 6.8).
	isolatedFile = "/sys/devices/system/cpu/isolated"
	nohzFile     = "/sys/devices/system/cpu/nohz_full"
	cpusetFile   = "/sys/fs/cgroup/cpuset.cpus.isolated"

	// A round takes an eighth off a list, which may have five times its least
	// length: so many rounds bring it down. They come several at a time, since a
	// CPU that one round has woken does the others' work as well.
	drainReaders = 4
	drainRounds  = 3 // of each

	// drainLimit bounds all rounds, where they take long: under emulation, or
	// with many CPUs. Natively two CPUs with nothing to free take 0.4 ms.
	drainLimit = 5 * time.Millisecond
)

// drain gives free pages that the kernel keeps on per-CPU lists, where the walk
// does not see them, back to the buddy allocator. The nil drain does nothing.
type drain struct {
	file  io.ReaderAt
	turn  chan struct{} // is full while somebody reads
	limit time.Duration
	lists []string // files with CPUs that are not to be disturbed
}

func newDrain(file io.ReaderAt, limit time.Duration, lists ...string) *drain {
	return &drain{file: file, turn: make(chan struct{}, 1), limit: limit, lists: lists}
}

// run drains, and returns the time it took: about the limit at most. A round
// disturbs all CPUs, so run does nothing where one of them is to be left alone.
// A round also waits for all CPUs, as long as a real-time task keeps one of them
// busy. Past the limit run leaves such a round behind; as long as it lasts, run
// does nothing.
func (d *drain) run() time.Duration {
	if d == nil || d.mustSpare() {
		return 0
	}
	select {
	case d.turn <- struct{}{}:
	default:
		return 0
	}
	start := time.Now()
	timeout := time.NewTimer(d.limit)
	defer timeout.Stop()
	var readers sync.WaitGroup
	for range drainReaders {
		readers.Go(func() { d.read(start) })
	}
	done := make(chan struct{})
	go func() {
		readers.Wait()
		<-d.turn
		close(done)
	}()
	select {
	case <-done:
	case <-timeout.C:
	}
	return time.Since(start)
}

func (d *drain) read(start time.Time) {
	var p [1]byte
	for range drainRounds {
		// The file is empty. Any other error is the kernel's dislike of its own
		// counters, which will not change.
		_, err := d.file.ReadAt(p[:], 0)
		if !errors.Is(err, io.EOF) || time.Since(start) > d.limit {
			return
		}
	}
}

// mustSpare tells whether there is a CPU that is not to be disturbed.
func (d *drain) mustSpare() bool {
	return slices.ContainsFunc(d.lists, func(list string) bool {
		cpus, err := os.ReadFile(list)
		// A kernel that cannot do it has no such file, or says "(null)".
		cpus = bytes.TrimSpace(cpus)
		return err == nil && len(cpus) > 0 && cpus[0] != '('
	})
}

// openRefresh opens the file. It does not use os.Open, which would have the
// runtime poll it.
func openRefresh() (*os.File, error) {
	fd, err := unix.Open(refreshFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", refreshFile, err)
	}
	return os.NewFile(uintptr(fd), refreshFile), nil
}
