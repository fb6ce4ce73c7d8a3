// SPDX-License-Identifier: Apache-2.0

package watched

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl passes a request with its argument, which may be shorter than that.
func ioctl(fd int, request uintptr, arg *[4]uint64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}
