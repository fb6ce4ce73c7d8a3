// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func swapOn(device string) error {
	path, err := unix.BytePtrFromString(device)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("swapon", errno)
	}
	return nil
}
