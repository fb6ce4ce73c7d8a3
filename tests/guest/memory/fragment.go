// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// longestRun is how many pages in a row a fragmented block gives back at most.
// Runs of one to that many, which begin anywhere, leave free blocks of the
// orders 0 to 3.
const longestRun = 8

// Fragment maps the given number of bytes in small pages, writes all of them,
// and gives most back in short runs, with a page kept between any two, so that
// the buddy allocator cannot merge them. The caller frees what is kept.
func Fragment(bytes int64) (*Block, error) {
	mem, err := mapPrivate(int(bytes))
	if err != nil {
		return nil, err
	}
	b := &Block{mem: mem}
	// EINVAL: the kernel has no huge pages to begin with.
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil && err != unix.EINVAL {
		return nil, fmt.Errorf("do without huge pages: %w", err)
	}
	b.write(runtime.NumCPU())
	for off, run := 0, 1; off+run*PageSize <= len(mem); run = run%longestRun + 1 {
		if err := unix.Madvise(mem[off:off+run*PageSize], unix.MADV_DONTNEED); err != nil {
			return nil, fmt.Errorf("give pages back: %w", err)
		}
		off += (run + 1) * PageSize
	}
	return b, nil
}
