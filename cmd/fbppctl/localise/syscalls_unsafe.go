// SPDX-License-Identifier: Apache-2.0

package localise

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// address returns where a part of a mapping begins.
func address(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) }

// mincore sets bit 0 of there for each page of p that is in memory.
func mincore(p, there []byte) error {
	_, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), uintptr(unsafe.Pointer(unsafe.SliceData(there))))
	return toError("mincore", e)
}

// maxNodes is above the number of any node that Linux can have.
const maxNodes = 1024

// mbind sets the policy of a mapping, for one node.
func mbind(p []byte, policy, node int) error {
	var mask [maxNodes / 64]uint64
	if node < 0 || node >= maxNodes {
		return toError("mbind", unix.EINVAL)
	}
	mask[node/64] = 1 << (node % 64)
	_, _, e := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), uintptr(policy), uintptr(unsafe.Pointer(&mask)),
		maxNodes+1, 0) // Linux takes one bit less
	return toError("mbind", e)
}

// movePages moves pages of this process to nodes, or without nodes asks where they are. status has
// a node or a negated errno for each page. Linux says how many it has left at least.
func movePages(pages []uintptr, nodes, status []int32, flags int) (left int, _ error) {
	if len(pages) == 0 {
		return 0, nil
	}
	n, _, e := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, uintptr(len(pages)),
		uintptr(unsafe.Pointer(unsafe.SliceData(pages))),
		uintptr(unsafe.Pointer(unsafe.SliceData(nodes))),
		uintptr(unsafe.Pointer(unsafe.SliceData(status))), uintptr(flags))
	return int(n), toError("move_pages", e)
}

// Of userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst.
const (
	uffdUserModeOnly  = 1          // UFFD_USER_MODE_ONLY: needs no privilege
	uffdAPI           = 0xaa       // UFFD_API
	uffdSIGBUS        = 1 << 7     // UFFD_FEATURE_SIGBUS: who faults gets that, and does not wait
	uffdioAPI         = 0xc018aa3f // UFFDIO_API
	uffdioRegister    = 0xc020aa00 // UFFDIO_REGISTER
	uffdModeOfMissing = 1          // UFFDIO_REGISTER_MODE_MISSING
)

// forbidMissing has each fault of this process on a page that p lacks fail, until the file is
// closed.
func forbidMissing(p []byte) (*os.File, error) {
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|uffdUserModeOnly, 0, 0)
	if e != 0 {
		return nil, toError("userfaultfd", e)
	}
	f := os.NewFile(fd, "userfaultfd")
	api := struct{ api, features, ioctls uint64 }{api: uffdAPI, features: uffdSIGBUS}
	_, _, e1 := unix.Syscall(unix.SYS_IOCTL, fd, uffdioAPI, uintptr(unsafe.Pointer(&api)))
	register := struct{ start, length, mode, ioctls uint64 }{
		uint64(address(p)), uint64(len(p)), uffdModeOfMissing, 0,
	}
	_, _, e2 := unix.Syscall(unix.SYS_IOCTL, fd, uffdioRegister, uintptr(unsafe.Pointer(&register)))
	if err := errors.Join(toError("UFFDIO_API", e1), toError("UFFDIO_REGISTER", e2)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func toError(call string, e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", call, e)
}
