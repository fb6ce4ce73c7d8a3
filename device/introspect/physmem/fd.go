// SPDX-License-Identifier: Apache-2.0

package physmem

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// FD is a file descriptor that backs guest memory: a memfd, or a file on tmpfs
// or hugetlbfs. The caller owns it and keeps it open.
//
// NextData moves the file's position. This does no harm to QEMU, which maps the
// file and does not use the position.
type FD int

var _ Sparse = FD(-1)

// ReadAt reads with pread, which allocates no holes.
func (fd FD) ReadAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(int(fd), p[n:], offset+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, os.NewSyscallError("pread", err)
		case m == 0:
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// NextData implements Sparse by lseek. On a file system that does not support
// holes, all is data.
func (fd FD) NextData(offset int64) (start, end int64, err error) {
	start, err = unix.Seek(int(fd), offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, os.NewSyscallError("lseek SEEK_DATA", err)
	}
	end, err = unix.Seek(int(fd), start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF // a hole was punched between the two calls
	}
	return start, end, os.NewSyscallError("lseek SEEK_HOLE", err)
}
