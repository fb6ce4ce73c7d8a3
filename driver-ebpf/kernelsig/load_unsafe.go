// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// attributes are those of BPF_PROG_LOAD in union bpf_attr of linux/bpf.h, up to keyring_id. Package
// ebpf has none for signatures.
type attributes struct {
	kind          uint32
	count         uint32
	code          unsafe.Pointer
	license       unsafe.Pointer
	_             [5]uint32
	flags         uint32
	name          [16]byte
	_             [22]uint32
	signature     unsafe.Pointer
	signatureSize uint32
	keyring       int32
}

// Supported returns nil if the kernel checks signatures, and [ErrUnsupported] if it does not. It
// asks with a signature that is none, and so loads nothing.
func Supported() error {
	fd, err := loadSigned(make([]byte, 16), []byte{0}, 0)
	switch {
	case errors.Is(err, unix.EBADMSG):
		return nil
	case errors.Is(err, unix.E2BIG), // it does not know the attributes
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL): // it was built without
		return ErrUnsupported
	case err == nil:
		err = errors.Join(errors.New("it takes anything"), unix.Close(fd))
	}
	return fmt.Errorf("find whether the kernel checks signatures: %w", err)
}

// loadSigned loads an installer, whose signature has to be by a key in the keyring.
func loadSigned(code, signature []byte, keyring int) (fd int, err error) {
	license := []byte("GPL\x00")
	a := attributes{
		kind: uint32(ebpf.Syscall), flags: unix.BPF_F_SLEEPABLE,
		code: unsafe.Pointer(unsafe.SliceData(code)), count: uint32(len(code) / 8),
		license:   unsafe.Pointer(unsafe.SliceData(license)),
		signature: unsafe.Pointer(unsafe.SliceData(signature)), signatureSize: uint32(len(signature)),
		keyring: int32(keyring),
	}
	copy(a.name[:], "fbpp_installer")
	r, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&a)),
		unsafe.Sizeof(a))
	if errno != 0 {
		return -1, os.NewSyscallError("bpf", errno)
	}
	return int(r), nil
}

// address returns where the memory is, for the kernel to write to. The caller keeps it, and it is
// on the heap, where it is not moved.
func address(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }
