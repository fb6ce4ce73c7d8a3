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

// mapping is a file's memory, mapped into this process. Nothing here reads or writes it.
type mapping struct {
	region placement.Region
	path   string // of the file, while the VM has it
	bytes  []byte
	page   uint64
	// uffd keeps a fault of ours from allocating what is missing. A page that is still to arrive
	// in a postcopy migration would be there then, and be zero.
	uffd *os.File
	// Room for one call of bring.
	there  []byte
	status []int32
	nodes  []int32
	pages  []uintptr // those that are there
	far    []uintptr // those of them that are not at the node
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
	page, err := pageOf(look, r)
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
	m := &mapping{region: r, path: path, bytes: bytes, page: page}
	// A core dump of this process is no place for it.
	if err = unix.Madvise(bytes, unix.MADV_DONTDUMP); err == nil {
		m.uffd, err = forbidMissing(bytes)
	}
	if err != nil {
		m.close()
		return nil, fmt.Errorf("protect what is missing of guest memory: %w", err)
	}
	return m, nil
}

// pageOf checks that a file is the region's, and in memory, and returns the size of its pages.
func pageOf(f *os.File, r placement.Region) (uint64, error) {
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
		return 0, errOnDisk
	}
	switch {
	case !isOf(&stat, r):
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
	if errors.Is(err, unix.ENOSYS) {
		return errors.New("this kernel knows no NUMA nodes")
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("this process may have no memory from node %d: %w; "+
			"/sys/devices/system/node/has_memory lists the nodes that have memory", node, err)
	}
	if err != nil {
		return fmt.Errorf("prefer node %d for guest memory: %w", node, err)
	}
	return nil
}

// same looks at the file that fbppd has open.
func (m *mapping) same() error {
	var stat unix.Stat_t
	err := unix.Stat(m.path, &stat)
	if err != nil || !isOf(&stat, m.region) {
		return errAnotherFile
	}
	return nil
}

// isOf says whether a file is that of a region.
func isOf(stat *unix.Stat_t, r placement.Region) bool {
	return stat.Dev == r.Device && stat.Ino == r.Inode
}

func (m *mapping) bring(offset, length uint64, node int) (c Counts, err error) {
	part := m.bytes[offset : offset+length]
	// The pages need not stay mapped here. It fails only for what is no mapping.
	defer func() { _ = unix.Madvise(part, unix.MADV_DONTNEED) }()
	before, err := m.look(part, node)
	if err != nil || len(m.far) == 0 {
		return Counts{There: before}, err
	}
	moved := m.move(node)
	after, err := m.look(part, node) // also after an error, which may come in the middle
	c = Counts{There: min(before, after), Moved: after - min(before, after)}
	if err = errors.Join(moved, err); err == nil {
		c.Left = uint64(len(m.far)) * m.page
	}
	return c, err
}

// look lists the pages of part that are there and far, and returns how many bytes are at the node.
func (m *mapping) look(part []byte, node int) (near uint64, _ error) {
	if err := m.find(part); err != nil {
		return 0, err
	}
	if err := m.ask(m.pages); err != nil {
		return 0, err
	}
	m.far = m.far[:0]
	for i, at := range m.status {
		switch {
		case at == int32(node):
			near += m.page
		case at >= 0:
			m.far = append(m.far, m.pages[i])
		} // else it has gone since
	}
	return near, nil
}

// move moves what is far. Linux gives a call up where a page stays: those behind it are tried by
// another.
func (m *mapping) move(node int) error {
	for rest := m.far; len(rest) > 0; {
		m.nodes = m.nodes[:0]
		for range rest {
			m.nodes = append(m.nodes, int32(node))
		}
		m.status = slices.Grow(m.status[:0], len(rest))[:len(rest)]
		left, err := movePages(rest, m.nodes, m.status, unix.MPOL_MF_MOVE_ALL)
		switch {
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("move guest memory: %w; run this as root", err)
		case errors.Is(err, unix.ENOMEM):
			return fmt.Errorf("move guest memory: %w: node %d has no room for more, or no huge pages",
				err, node)
		case err != nil:
			return fmt.Errorf("move guest memory to node %d: %w", node, err)
		case left == 0:
			return nil
		}
		// What it says of single pages is not what became of them: all of a large folio moves
		// with one of its pages.
		if err := m.ask(rest); err != nil {
			return err
		}
		first := slices.IndexFunc(m.status, func(at int32) bool { return at != int32(node) })
		if first < 0 {
			return nil
		}
		rest = rest[first+1:]
	}
	return nil
}

// find lists the pages of part that are there, and maps them. It fills no holes.
func (m *mapping) find(part []byte) error {
	m.pages = m.pages[:0]
	if small := os.Getpagesize(); int(m.page) > small {
		// Of huge pages mincore(2) knows only those that this process has mapped.
		for at := 0; at < len(part); at += int(m.page) {
			if err := m.populate(part[at : at+int(m.page)]); err != nil {
				return err
			}
		}
		return nil
	}
	m.there = slices.Grow(m.there[:0], len(part)/int(m.page))[:len(part)/int(m.page)]
	if err := mincore(part, m.there); err != nil {
		return fmt.Errorf("look which guest memory is there: %w", err)
	}
	for i := 0; i < len(m.there); {
		first := i
		for i < len(m.there) && m.there[i]&1 != 0 {
			i++
		}
		if first == i {
			i++
			continue
		}
		if err := m.populate(part[first*int(m.page) : i*int(m.page)]); err != nil {
			return err
		}
	}
	return nil
}

// populate maps pages, and lists them. It ends at one that is missing: if some were there a moment
// ago, those behind it stay unmapped, and so where they are.
func (m *mapping) populate(pages []byte) error {
	err := unix.Madvise(pages, unix.MADV_POPULATE_READ)
	if errors.Is(err, unix.EINVAL) {
		return errors.New("this needs Linux 5.14 or later")
	}
	if err != nil && len(pages) == int(m.page) {
		return nil // a hole
	}
	for at := 0; at < len(pages); at += int(m.page) {
		m.pages = append(m.pages, address(pages[at:]))
	}
	return nil
}

// ask fills status with the node of each page, or a negative number if it is not mapped.
func (m *mapping) ask(pages []uintptr) error {
	m.status = slices.Grow(m.status[:0], len(pages))[:len(pages)]
	if _, err := movePages(pages, nil, m.status, 0); err != nil {
		return fmt.Errorf("ask for the nodes of guest memory: %w", err)
	}
	return nil
}
