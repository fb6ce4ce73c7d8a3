// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Resident returns how many pages of a file or disk are in the page cache. Looking does not
// make them count as used.
func Resident(f *os.File) (pages int64, err error) {
	size, err := f.Seek(0, 2) // of a disk, Stat says 0
	if err != nil || size == 0 {
		return 0, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	defer func() { _ = unix.Munmap(m) }()
	base := int64(perBase())
	in := make([]byte, (size+base*PageSize-1)/(base*PageSize))
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])),
		uintptr(size), uintptr(unsafe.Pointer(&in[0])))
	if errno != 0 {
		return 0, os.NewSyscallError("mincore", errno)
	}
	for _, b := range in {
		pages += int64(b&1) * base
	}
	return pages, nil
}

// SwapOn has the kernel swap to a disk.
func SwapOn(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), 0, 0); errno != 0 {
		return &os.PathError{Op: "swap on", Path: path, Err: errno}
	}
	return nil
}
