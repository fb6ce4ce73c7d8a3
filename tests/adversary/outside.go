// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const pageSize = 4096

// entrySize is the size of struct page of guest/page.h, in bytes.
const entrySize = 8

// Loss is a page whose contents differ between source and destination.
type Loss struct {
	PFN        uint64
	Generation uint32 // of the guest's last write to it
	Moment     int    // when that was
	Lent       bool   // whether the device may write the page
	Offset     int    // of the first byte that differs
	Bytes      int    // number of bytes that differ
}

func (l Loss) String() string {
	written := "written " + momentName(l.Moment)
	if l.Lent {
		written = "lent to the device"
	}
	return fmt.Sprintf("page %#x, generation %d, %s: %d bytes differ, from %#x on",
		l.PFN, l.Generation, written, l.Bytes, l.Offset)
}

// ram is a mapping of a guest's memory.
type ram []byte

// openRAM maps the memory of a guest for reading: a memfd of the QEMU with this pid.
// The caller closes it.
func openRAM(pid, size int) (ram, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the guest's memory: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		to, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(to, "/memfd:memory-backend-memfd") {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil || info.Size() != int64(size) {
			continue
		}
		mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("map the guest's memory: %w", err)
		}
		return mem, nil
	}
	return nil, errors.New("look at the guest's memory: QEMU has no memfd of its size")
}

func (r ram) close() error { return unix.Munmap(r) }

// page returns the contents of a page.
func (r ram) page(pfn uint64) []byte { return r[pfn*pageSize : (pfn+1)*pageSize] }

// Values of enum page_state of guest/page.h: states in which a page's contents matter.
const (
	stateUsed = 2
	stateLent = 3
)

// entry returns a page's entry in the guest's table.
func (r ram) entry(table, pfn uint64) (state byte, l Loss) {
	e := r[table+pfn*entrySize:][:entrySize]
	state = e[4]
	return state, Loss{
		PFN: pfn, Generation: binary.LittleEndian.Uint32(e),
		Moment: int(e[5]), Lent: state == stateLent,
	}
}

// compare compares the pages that have contents at the source. It returns those that
// differ, and how many it compared. Neither memory may change meanwhile.
func compare(source, destination ram, table uint64) (lost []Loss, used int) {
	for pfn := range uint64(len(source) / pageSize) {
		state, l := source.entry(table, pfn)
		if state < stateUsed {
			continue
		}
		used++
		here, there := source.page(pfn), destination.page(pfn)
		if bytes.Equal(here, there) {
			continue
		}
		for i := range here {
			if here[i] == there[i] {
				continue
			}
			if l.Bytes == 0 {
				l.Offset = i
			}
			l.Bytes++
		}
		lost = append(lost, l)
	}
	return lost, used
}
