// SPDX-License-Identifier: Apache-2.0

package shm

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/userfaultfd.h, Linux 6.12.
const (
	uffdAPI        = 0xaa
	uffdioAPI      = 0xc018aa3f
	uffdioRegister = 0xc020aa00
	uffdioForget   = 0x8010aa01 // UFFDIO_UNREGISTER
	uffdioWake     = 0x8010aa02
	uffdNew        = 0xaa00 // USERFAULTFD_IOC_NEW, of /dev/userfaultfd

	uffdUserModeOnly = 1 // UFFD_USER_MODE_ONLY

	uffdMissingShmem  = 1 << 5
	uffdModeMissing   = 1
	uffdEventFault    = 0x12
	uffdMessageLength = 32
)

type uffdRange struct{ start, length uint64 }

// Userfault is a userfaultfd. An access to a missing page of a registered mapping waits, and the
// process that reads the userfaultfd is told of it.
type Userfault struct {
	// FD is for sending. It belongs to the Userfault.
	FD int
	// UserModeOnly says that accesses in system calls fail instead of waiting. So
	// [Populate] fails, and [Touch] has to be used.
	UserModeOnly bool
}

// UserfaultDevice creates userfaultfds for processes that may open it, from Linux 6.1 on.
const UserfaultDevice = "/dev/userfaultfd"

// OpenUserfault makes a Userfault. It needs one of these: dev, an open [UserfaultDevice], which may
// be nil; CAP_SYS_PTRACE or vm.unprivileged_userfaultfd; or the permission to open that device.
// Without any of them the result is UserModeOnly, which needs Linux 5.11. The caller closes it.
func OpenUserfault(dev *os.File) (_ *Userfault, err error) {
	u, err := newUserfault(dev)
	if err != nil {
		return nil, fmt.Errorf("open userfaultfd: %w", err)
	}
	defer func() {
		if err != nil {
			u.Close()
		}
	}()
	api := struct{ api, features, ioctls uint64 }{api: uffdAPI}
	if err := u.ioctl(uffdioAPI, unsafe.Pointer(&api)); err != nil {
		return nil, fmt.Errorf("open userfaultfd: %w", err)
	}
	if api.features&uffdMissingShmem == 0 {
		return nil, errors.New("open userfaultfd: the kernel has none for shared memory")
	}
	return u, nil
}

// newUserfault takes the first way that is open to us.
func newUserfault(dev *os.File) (*Userfault, error) {
	if dev != nil {
		if fd, err := deviceUserfault(dev); err == nil {
			return &Userfault{FD: fd}, nil
		}
	}
	fd, err := userfaultfd(0)
	if err == nil {
		return &Userfault{FD: fd}, nil
	}
	if dev, err := os.OpenFile(UserfaultDevice, os.O_RDWR, 0); err == nil {
		fd, err := deviceUserfault(dev)
		dev.Close()
		if err == nil {
			return &Userfault{FD: fd}, nil
		}
	}
	if fd, err := userfaultfd(uffdUserModeOnly); err == nil {
		return &Userfault{FD: fd, UserModeOnly: true}, nil
	}
	return nil, err
}

func userfaultfd(flags uintptr) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|flags, 0, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("userfaultfd", errno)
	}
	return int(fd), nil
}

func deviceUserfault(dev *os.File) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, dev.Fd(), uffdNew, unix.O_CLOEXEC|unix.O_NONBLOCK)
	if errno != 0 {
		return -1, os.NewSyscallError("ioctl", errno)
	}
	return int(fd), nil
}

func (u *Userfault) ioctl(req uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(u.FD), req, uintptr(arg)); errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

// Register makes accesses to missing pages of m wait. m was not accessed yet.
func (u *Userfault) Register(m *Mapping) error {
	// A huge page would make neighbours of a page that arrived miss their wake-up.
	_ = unix.Madvise(m.whole, unix.MADV_NOHUGEPAGE)
	arg := struct {
		uffdRange
		mode, ioctls uint64
	}{uffdRange: rangeOf(m.whole), mode: uffdModeMissing}
	if err := u.ioctl(uffdioRegister, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("register with userfaultfd: %w", err)
	}
	return nil
}

// Unregister ends what Register began. Accesses that wait go on.
func (u *Userfault) Unregister(m *Mapping) error {
	arg := rangeOf(m.whole)
	if err := u.ioctl(uffdioForget, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("unregister from userfaultfd: %w", err)
	}
	return nil
}

// Wake lets accesses to n bytes at addr, an address in the process that
// registered them, look again.
func (u *Userfault) Wake(addr, n uint64) error {
	arg := uffdRange{addr, n}
	return u.ioctl(uffdioWake, unsafe.Pointer(&arg))
}

// Fault returns the address of an access that began to wait, or false if there
// is none to hear of.
func (u *Userfault) Fault() (addr uint64, ok bool, err error) {
	var msg struct {
		event   uint8
		_       [7]byte
		flags   uint64
		address uint64
		_       uint64
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&msg)), uffdMessageLength)
	switch _, err := unix.Read(u.FD, b); {
	case errors.Is(err, unix.EAGAIN):
		return 0, false, nil
	case err != nil:
		return 0, false, os.NewSyscallError("read", err)
	}
	return msg.address, msg.event == uffdEventFault, nil
}

// Close closes the descriptor.
func (u *Userfault) Close() { unix.Close(u.FD) }

func rangeOf(b []byte) uffdRange { return uffdRange{Addr(b), uint64(len(b))} }

// Resident says whether all pages of b, a part of a file mapping, are in the page cache. If so, no
// access to them waits for a userfaultfd.
func Resident(b []byte) bool {
	var vec [512]byte
	pageSize := uint64(os.Getpagesize())
	first := Addr(b) &^ (pageSize - 1)
	for left := (Addr(b) - first + uint64(len(b)) + pageSize - 1) / pageSize; left > 0; {
		n := min(left, uint64(len(vec)))
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(first), uintptr(n*pageSize),
			uintptr(unsafe.Pointer(&vec)))
		if errno != 0 {
			return false // the access will say what is wrong
		}
		for _, v := range vec[:n] {
			if v&1 == 0 {
				return false
			}
		}
		first, left = first+n*pageSize, left-n
	}
	return true
}

// Populate makes the pages of b present, and waits for them in a system call:
// a goroutine that waited in an access of its own would hold up the garbage
// collector, and with it the process. Needs Linux 5.14.
func Populate(b []byte) error {
	pageSize := uint64(os.Getpagesize())
	first := Addr(b) &^ (pageSize - 1)
	n := (Addr(b) - first + uint64(len(b)) + pageSize - 1) &^ (pageSize - 1)
	for {
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(first), uintptr(n), unix.MADV_POPULATE_READ)
		switch errno {
		case 0:
			return nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return os.NewSyscallError("madvise", errno)
		}
	}
}

// Touch makes the pages of b present as [Populate] does, but by accesses of user
// mode. The goroutine that waits in one keeps a processor of Go's runtime (see
// GOMAXPROCS) for up to 10 ms at a time, and others run in between: the signal by
// which the runtime preempts a loop like this one ends the kernel's wait, and the
// access is made again later. Neither the collector nor anybody else is held up for
// longer. Callers bound how many do so at once, and are inside a [Guard].
func Touch(b []byte) (sum byte) {
	pageSize := os.Getpagesize()
	for off := 0; off < len(b); {
		sum += b[off]
		off += pageSize - int(Addr(b[off:])&uint64(pageSize-1)) // the next page begins there
	}
	return sum
}
