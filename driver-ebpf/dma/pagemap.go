// SPDX-License-Identifier: Apache-2.0

package dma

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Layout of an entry of /proc/pid/pagemap, from the kernel's
// Documentation/admin-guide/mm/pagemap.rst.
const (
	pagemapEntrySize = 8
	pagemapPresent   = 1 << 63
	pagemapFrameMask = 1<<55 - 1
)

var (
	errNotPresent = errors.New("page is not present")
	errHidden     = errors.New("the kernel hides page frame numbers: CAP_SYS_ADMIN is needed")
)

// lookupFrames returns the physical page numbers of this many mapped pages from addr on.
func lookupFrames(addr uintptr, pages, pageSize int) ([]uint64, error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readFrames(f, addr, pages, pageSize)
}

func readFrames(pagemap io.ReaderAt, addr uintptr, pages, pageSize int) ([]uint64, error) {
	entries := make([]byte, pages*pagemapEntrySize)
	if _, err := pagemap.ReadAt(entries, int64(addr)/int64(pageSize)*pagemapEntrySize); err != nil {
		return nil, fmt.Errorf("read pagemap: %w", err)
	}
	frames := make([]uint64, pages)
	for i := range frames {
		entry := binary.NativeEndian.Uint64(entries[i*pagemapEntrySize:])
		if entry&pagemapPresent == 0 {
			return nil, fmt.Errorf("pagemap entry %d (%#x): %w", i, entry, errNotPresent)
		}
		frames[i] = entry & pagemapFrameMask
		if frames[i] == 0 {
			return nil, fmt.Errorf("pagemap entry %d (%#x): %w", i, entry, errHidden)
		}
	}
	return frames, nil
}
