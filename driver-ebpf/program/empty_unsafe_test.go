// SPDX-License-Identifier: Apache-2.0

package program

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendEmpty sends ancillary data without a byte beside it. Package unix adds one.
func sendEmpty(to *os.File, oob []byte) error {
	h := unix.Msghdr{Control: &oob[0]}
	h.SetControllen(len(oob))
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, to.Fd(), uintptr(unsafe.Pointer(&h)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
