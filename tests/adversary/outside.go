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

// entrySize is that of struct page of guest/page.h.
const entrySize = 8

// Loss is a page whose contents at the destination are not the source's.
type Loss struct {
	PFN        uint64
	Generation uint32 // of the guest's last write to it
	Moment     int    // when that was
}

func (l Loss) String() string {
	return fmt.Sprintf("page %#x, generation %d, written %s", l.PFN, l.Generation, momentName(l.Moment))
}

// ram is the memory of a QEMU process, seen from outside.
type ram []byte

// openRAM maps the memory of a guest, which is a memfd of QEMU's, for reading.
// The caller closes it.
func openRAM(pid, size int) (ram, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the guest's memory: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if to, err := os.Readlink(path); err != nil || !strings.HasPrefix(to, "/memfd:") {
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

// stateUsed is the first of enum page_state of guest/page.h in which a page's
// contents matter.
const stateUsed = 2

// entry returns what the guest's table says of a page.
func (r ram) entry(table, pfn uint64) (used bool, generation uint32, moment int) {
	e := r[table+pfn*entrySize:][:entrySize]
	return e[4] >= stateUsed, binary.LittleEndian.Uint32(e), int(e[5])
}

// compare returns the pages that differ and have contents in the source's
// guest. Nobody may write either memory meanwhile.
func compare(source, destination ram, table uint64) (lost []Loss, used int) {
	for pfn := range uint64(len(source) / pageSize) {
		inUse, generation, moment := source.entry(table, pfn)
		if !inUse {
			continue
		}
		used++
		if !bytes.Equal(source.page(pfn), destination.page(pfn)) {
			lost = append(lost, Loss{PFN: pfn, Generation: generation, Moment: moment})
		}
	}
	return lost, used
}
