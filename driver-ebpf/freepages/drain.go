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
	// refreshFile is read for its side effect: every CPU updates its counters, and
	// shortens its per-CPU lists of free pages (decay_pcp_high in mm/page_alloc.c,
	// Linux 6.7). Each CPU does so once a second by itself, but not while it is idle.
	refreshFile = "/proc/sys/vm/stat_refresh"

	// Lists of CPUs that are left to their own tasks: two of the kernel's command
	// line, and one of cgroups, which changes while the guest runs (Linux 6.8).
	isolatedFile = "/sys/devices/system/cpu/isolated"
	nohzFile     = "/sys/devices/system/cpu/nohz_full"
	cpusetFile   = "/sys/fs/cgroup/cpuset.cpus.isolated"

	// A round takes an eighth off a list, and a list may be five times its least
	// length, so several rounds are needed. They run in parallel, because a CPU that
	// one round has woken does the work of the others as well.
	drainReaders = 4
	drainRounds  = 3 // of each

	// drainLimit bounds the time of all rounds. They take long under emulation or with
	// many CPUs. On real hardware two CPUs with nothing to free take 0.4 ms.
	drainLimit = 5 * time.Millisecond
)

// drain moves free pages from the kernel's per-CPU lists, which the walk does not see, to
// the buddy allocator. A nil drain does nothing.
type drain struct {
	file  io.ReaderAt
	turn  chan struct{} // full while a round runs
	limit time.Duration
	lists []string // files that list CPUs which must not be disturbed
}

func newDrain(file io.ReaderAt, limit time.Duration, lists ...string) *drain {
	return &drain{file: file, turn: make(chan struct{}, 1), limit: limit, lists: lists}
}

// run drains, and returns the time it took, which is about the limit at most. A round
// disturbs all CPUs. So run does nothing if one of them must not be disturbed. A round also
// waits for all CPUs, which can take long if a real-time task keeps one of them busy. After
// the limit run returns without waiting for such a round. Until that round ends, later calls
// do nothing.
func (d *drain) run() time.Duration {
	if d == nil || namesCPU(d.lists) {
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
		// EOF is expected. Any other error means that the kernel finds its counters
		// inconsistent, and it would do so again.
		_, err := d.file.ReadAt(p[:], 0)
		if !errors.Is(err, io.EOF) || time.Since(start) > d.limit {
			return
		}
	}
}

// namesCPU tells whether one of the files that list CPUs lists any.
func namesCPU(files []string) bool {
	return slices.ContainsFunc(files, func(list string) bool {
		cpus, err := os.ReadFile(list)
		// A kernel without the feature has no such file, or prints "(null)".
		cpus = bytes.TrimSpace(cpus)
		return err == nil && len(cpus) > 0 && cpus[0] != '('
	})
}

// openRefresh opens refreshFile. It does not use os.Open, because the runtime would then
// poll the file.
func openRefresh() (*os.File, error) {
	fd, err := unix.Open(refreshFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", refreshFile, err)
	}
	return os.NewFile(uintptr(fd), refreshFile), nil
}
