// SPDX-License-Identifier: Apache-2.0

package localise

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/placement"
)

// mapping is a file's memory, mapped into this process. Nobody may read or write it.
type mapping struct {
	bytes []byte
	page  uint64
	// uffd keeps a fault of ours from allocating what is missing. A page that is still to arrive
	// in a postcopy migration would be there then, and be zero.
	uffd *os.File
	// Room for one call of bring.
	there  []byte
	status []int32
	nodes  []int32
	pages  []uintptr
}

var _ file = (*mapping)(nil)

// open maps a region of the process that has its file open. fbppd may have been taken over by its
// guest, so what it names has to be a file in memory: to open any other could have effects.
func open(pid int, r placement.Region) (*mapping, error) {
	path := fmt.Sprintf("/proc/%d/fd/%d", pid, r.FD)
	look, err := os.OpenFile(path, unix.O_PATH, 0)
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("open guest memory: %w; run this as root", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open guest memory: %w; is fbppd still running? Then try again", err)
	}
	defer look.Close()
	page, err := pageSize(look, r)
	if err != nil {
		return nil, err
	}
	// By the descriptor that was looked at: fbppd may put another file in its place. A userfaultfd
	// wants a file that may be written.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", look.Fd()), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open guest memory: %w", err)
	}
	defer f.Close()
	bytes, err := unix.Mmap(int(f.Fd()), int64(r.Offset), int(r.Length), unix.PROT_READ,
		unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map guest memory: %w", err)
	}
	m := &mapping{bytes: bytes, page: page}
	if m.uffd, err = forbidMissing(bytes); err != nil {
		m.close()
		return nil, fmt.Errorf("protect what is missing of guest memory: %w", err)
	}
	return m, nil
}

// pageSize checks that a file is the region's, and in memory, and returns the size of its pages.
func pageSize(f *os.File, r placement.Region) (uint64, error) {
	var stat unix.Stat_t
	var fs unix.Statfs_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return 0, fmt.Errorf("look at guest memory: %w", err)
	}
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return 0, fmt.Errorf("look at guest memory: %w", err)
	}
	page := uint64(os.Getpagesize())
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return 0, errors.New("what fbppd calls guest memory is no file")
	case fs.Type == unix.HUGETLBFS_MAGIC:
		page = uint64(fs.Bsize)
	case fs.Type != unix.TMPFS_MAGIC:
		return 0, errors.New("guest memory is in a file on a disk, whose pages have no node to keep " +
			"to: use memory-backend-memfd, or a file in tmpfs or hugetlbfs")
	}
	switch {
	case stat.Dev != r.Device || stat.Ino != r.Inode:
		return 0, errAnotherFile
	case r.Length == 0 || r.Length > math.MaxInt64 || r.Offset > math.MaxInt64-r.Length ||
		(r.Offset|r.Length)%page != 0:
		return 0, fmt.Errorf("guest memory of %#x bytes at %#x of its file is not made of pages of "+
			"%d KiB", r.Length, r.Offset, page>>10)
	case r.Offset+r.Length > uint64(stat.Size):
		return 0, fmt.Errorf("the file of guest memory ends at %#x, before %#x",
			stat.Size, r.Offset+r.Length)
	}
	return page, nil
}

func (m *mapping) pageSize() uint64 { return m.page }

func (m *mapping) close() {
	_ = unix.Munmap(m.bytes) // it fails for no mapping of ours
	if m.uffd != nil {
		m.uffd.Close()
	}
}

func (m *mapping) prefer(node int) error {
	err := mbind(m.bytes, unix.MPOL_PREFERRED, node)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("this process may have no memory from node %d: %w; "+
			"/sys/devices/system/node/has_memory lists the nodes that have memory", node, err)
	}
	if err != nil {
		return fmt.Errorf("prefer node %d for guest memory: %w", node, err)
	}
	return nil
}

func (m *mapping) bring(offset, length uint64, node int) (c Counts, err error) {
	part := m.bytes[offset : offset+length]
	if err := m.find(part); err != nil {
		return c, err
	}
	// The pages need not stay mapped here. It fails only for what is no mapping.
	defer func() { _ = unix.Madvise(part, unix.MADV_DONTNEED) }()
	if err := m.ask(); err != nil {
		return c, err
	}
	far := m.pages[:0]
	for i, at := range m.status {
		switch {
		case at == int32(node):
			c.There += m.page
		case at >= 0:
			far = append(far, m.pages[i])
		} // else it has gone since
	}
	if m.pages = far; len(far) == 0 {
		return c, nil
	}
	m.nodes = m.nodes[:0]
	for range far {
		m.nodes = append(m.nodes, int32(node))
	}
	// What it says of single pages is not what became of them: all pages of a large folio move
	// with the first. So ask again.
	err = movePages(m.pages, m.nodes, m.status[:len(far)], unix.MPOL_MF_MOVE_ALL)
	if errors.Is(err, unix.EPERM) {
		return c, fmt.Errorf("move guest memory: %w; run this as root", err)
	}
	if err != nil {
		return c, fmt.Errorf("move guest memory to node %d: %w", node, err)
	}
	if err := m.ask(); err != nil {
		return c, err
	}
	for _, at := range m.status {
		switch {
		case at == int32(node):
			c.Moved += m.page
		case at >= 0:
			c.Left += m.page
		}
	}
	return c, nil
}

// find lists the pages of part that are there, and maps them. It fills no holes.
func (m *mapping) find(part []byte) error {
	small := os.Getpagesize()
	m.there = slices.Grow(m.there[:0], len(part)/small)[:len(part)/small]
	if err := mincore(part, m.there); err != nil {
		return fmt.Errorf("look which guest memory is there: %w", err)
	}
	m.pages = m.pages[:0]
	step := int(m.page) / small
	for i := 0; i < len(m.there); {
		if m.there[i]&1 == 0 {
			i += step
			continue
		}
		first := i
		for ; i < len(m.there) && m.there[i]&1 != 0; i += step {
			m.pages = append(m.pages, address(part[i*small:]))
		}
		// It ends at a page that has gone since. What is behind counts as gone, too: it stays.
		err := unix.Madvise(part[first*small:min(i*small, len(part))], unix.MADV_POPULATE_READ)
		if errors.Is(err, unix.EINVAL) {
			return errors.New("this needs Linux 5.14 or later")
		}
	}
	return nil
}

// ask fills status with the node of each page, or a negative number if it is not mapped.
func (m *mapping) ask() error {
	m.status = slices.Grow(m.status[:0], len(m.pages))[:len(m.pages)]
	if err := movePages(m.pages, nil, m.status, 0); err != nil {
		return fmt.Errorf("ask for the nodes of guest memory: %w", err)
	}
	return nil
}
