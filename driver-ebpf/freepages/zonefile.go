// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// zonePrint is a file of /proc that makes the kernel print each zone, and how it does so:
// see mm/vmstat.c.
type zonePrint struct {
	path      string
	functions []string // one of them prints the zones: which one is the compiler's choice
	format    string   // of the first print of each zone
}

// zonePrints returns the files that the walk can use, best first. /proc/buddyinfo prints the
// least, but since Linux 7.3 without zone->lock. /proc/zoneinfo also prints a few lines for
// each CPU while it holds the lock.
func zonePrints() []zonePrint {
	return []zonePrint{
		{"/proc/buddyinfo", []string{"frag_show", "frag_show_print"}, "Node %d, zone %8s "},
		{"/proc/zoneinfo", []string{"zoneinfo_show", "zoneinfo_show_print"}, "Node %d, zone %8s"},
	}
}

// zoneLine begins the first line that the kernel prints of a zone.
const zoneLine = "Node "

// The text of a file is about 200 bytes for each zone and CPU.
const (
	textSize    = 64 << 10
	textSizeMax = 16 << 20
)

// zoneFile is an open file of a zonePrint.
type zoneFile struct {
	path   string
	source source
	buf    []byte
	text   []byte // of the last read
}

// source is where a zoneFile reads.
type source interface {
	pread(p []byte, off int64) (int, error)
	close() error
}

// descriptor is an open file.
type descriptor int

func (d descriptor) pread(p []byte, off int64) (int, error) { return unix.Pread(int(d), p, off) }

func (d descriptor) close() error { return unix.Close(int(d)) }

func openZoneFile(path string) (*zoneFile, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &zoneFile{path: path, source: descriptor(fd), buf: make([]byte, textSize)}, nil
}

// read reads the file from its beginning to its end into f.text.
func (f *zoneFile) read() error {
	f.text = nil
	n := 0
	for {
		m, err := f.source.pread(f.buf[n:], int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("pread "+f.path, err)
		}
		if n += m; m == 0 {
			f.text = f.buf[:n]
			return nil
		}
		if n < len(f.buf) {
			continue
		}
		if n >= textSizeMax {
			return fmt.Errorf("read %s: more than %d bytes: %w", f.path, n, io.ErrShortBuffer)
		}
		f.buf = append(f.buf, make([]byte, n)...)
	}
}

// zones returns how many zones the last read printed.
func (f *zoneFile) zones() (n int) {
	for line := range bytes.Lines(f.text) {
		if bytes.HasPrefix(line, []byte(zoneLine)) {
			n++
		}
	}
	return n
}

func (f *zoneFile) close() error {
	return os.NewSyscallError("close "+f.path, f.source.close())
}
