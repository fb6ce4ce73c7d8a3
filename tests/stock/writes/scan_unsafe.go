// SPDX-License-Identifier: Apache-2.0

package writes

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageRange is struct page_region: addresses of pages of one kind.
type pageRange struct{ Start, End, Categories uint64 }

// scanArg is struct pm_scan_arg of PAGEMAP_SCAN (include/uapi/linux/fs.h).
type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages uint64
	inverted, mask, anyOf, returned                         uint64
}

const (
	pagemapScan    = 0xc0606610
	checkWatched   = 1 << 1 // PM_SCAN_CHECK_WPASYNC
	pageWritten    = 1 << 1 // PAGE_IS_WRITTEN
	rangesPerQuery = 1024
)

// scan returns the written pages between two addresses of the process that this pagemap
// descriptor belongs to. It is an error if the memory is not watched.
func scan(pagemap uintptr, start, end uint64) ([]pageRange, error) {
	var all []pageRange
	ranges := make([]pageRange, rangesPerQuery)
	for start < end {
		arg := scanArg{
			flags: checkWatched, start: start, end: end,
			vec: uint64(uintptr(unsafe.Pointer(&ranges[0]))), vecLen: rangesPerQuery,
			mask: pageWritten, returned: pageWritten,
		}
		arg.size = uint64(unsafe.Sizeof(arg))
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, pagemap, pagemapScan, uintptr(unsafe.Pointer(&arg)))
		if errno != 0 {
			return nil, os.NewSyscallError("PAGEMAP_SCAN", errno)
		}
		all = append(all, ranges[:n]...)
		start = arg.walkEnd
	}
	return all, nil
}
