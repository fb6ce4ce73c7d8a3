// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// longestRun is the most base pages that Fragment frees in a row. Runs of 1 to longestRun
// pages, which begin at any page, leave free blocks of the orders 0 to 3.
const longestRun = 8

// Fragment maps the given number of bytes in small pages, writes all of them,
// and frees most of them in short runs. It keeps a page between any two runs, so that
// the buddy allocator cannot merge them. The caller frees the Block.
func Fragment(bytes int64) (*Block, error) {
	mem, err := mapPrivate(int(bytes))
	if err != nil {
		return nil, err
	}
	b := &Block{mem: mem}
	// EINVAL: the kernel has no transparent huge pages.
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil && err != unix.EINVAL {
		return nil, fmt.Errorf("do without huge pages: %w", err)
	}
	b.write(runtime.NumCPU())
	page := perBase() * PageSize
	for off, run := 0, 1; off+run*page <= len(mem); run = run%longestRun + 1 {
		if err := unix.Madvise(mem[off:off+run*page], unix.MADV_DONTNEED); err != nil {
			return nil, fmt.Errorf("give pages back: %w", err)
		}
		off += (run + 1) * page
	}
	return b, nil
}
