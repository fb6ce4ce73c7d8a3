// SPDX-License-Identifier: Apache-2.0

package shm

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// Mapping is a shared, writable mapping of a part of a file, outside the Go
// heap.
type Mapping struct {
	whole []byte
	data  []byte
}

// Map maps size bytes of fd from offset. fd stays the caller's and is not
// needed afterwards. offset must be a multiple of 8, so that aligned fields
// stay aligned. A regular file that is too short is refused at once; it may
// still be truncated later, which is what Guard is for.
func Map(fd int, offset, size uint64) (*Mapping, error) {
	if size == 0 || offset%8 != 0 || size > math.MaxInt64-offset {
		return nil, fmt.Errorf("map file: size %#x or offset %#x is unusable", size, offset)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("map file: %w", os.NewSyscallError("fstat", err))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && offset+size > uint64(st.Size) {
		return nil, fmt.Errorf("map file: %#x bytes at %#x lie outside a file of %#x", size, offset,
			st.Size)
	}
	gran := granularity(fd)
	pad := offset % gran
	length := (pad + size + gran - 1) / gran * gran
	if length < size || length > math.MaxInt64 {
		return nil, fmt.Errorf("map file: size %#x is unusable", size)
	}
	whole, err := unix.Mmap(fd, int64(offset-pad), int(length), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map file: %w", os.NewSyscallError("mmap", err))
	}
	// Guest memory does not belong into our core dumps. Failure is harmless.
	_ = unix.Madvise(whole, unix.MADV_DONTDUMP)
	return &Mapping{whole: whole, data: whole[pad : pad+size : pad+size]}, nil
}

// granularity returns what the offset of a mapping of fd must be a multiple
// of: the page size, or the huge page size on hugetlbfs.
func granularity(fd int) uint64 {
	page := uint64(os.Getpagesize())
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.HUGETLBFS_MAGIC ||
		uint64(fs.Bsize) < page {
		return page
	}
	return uint64(fs.Bsize)
}

// Bytes returns the mapped memory. It must not be used after Unmap.
func (m *Mapping) Bytes() []byte { return m.data }

// Revoke makes every access fault, also those that wait for a page.
func (m *Mapping) Revoke() error {
	return os.NewSyscallError("mprotect", unix.Mprotect(m.whole, unix.PROT_NONE))
}

// Unmap ends the mapping.
func (m *Mapping) Unmap() error {
	whole := m.whole
	m.whole, m.data = nil, nil
	return os.NewSyscallError("munmap", unix.Munmap(whole))
}
