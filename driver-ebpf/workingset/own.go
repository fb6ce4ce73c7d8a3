// SPDX-License-Identifier: Apache-2.0

package workingset

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// present is the bit of an entry of /proc/pid/pagemap whose page is in memory (Linux,
// Documentation/admin-guide/mm/pagemap.rst). An entry has 8 bytes.
const present = 1 << 63

// part is where a process has a part of a file.
type part struct {
	start, end, offset uint64 // in bytes; the offset is of the file
}

// touchOwn uses the pages of the agent's own program that it has in its memory. The agent does
// nothing while a guest is sampled, but it is one of the first to run at a destination, where it
// greets the device. The caller calls the result when the lists were aged: until then it is the
// page table of touchOwn's own mapping that shows the use.
func touchOwn() (release func() error, err error) {
	program, err := mapOwn()
	if err != nil {
		return nil, err
	}
	release = func() error { return unix.Munmap(program) }
	if err := touchPresent(program); err != nil {
		_ = release() // what it maps is its own
		return nil, err
	}
	return release, nil
}

// mapOwn maps the file of the agent's program once more, also if it was replaced.
func mapOwn() ([]byte, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	program, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return program, nil
}

// touchPresent reads a byte of each page of the program that the agent has in its page table.
func touchPresent(program []byte) error {
	parts, err := ownParts()
	if err != nil {
		return err
	}
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return err
	}
	defer pagemap.Close()
	size, sum := uint64(os.Getpagesize()), byte(0)
	for _, p := range parts {
		entries := make([]byte, (p.end-p.start)/size*8)
		if _, err := pagemap.ReadAt(entries, int64(p.start/size*8)); err != nil {
			return fmt.Errorf("look for the agent's own pages: %w", err)
		}
		for i := uint64(0); i < uint64(len(entries)/8); i++ {
			at := p.offset + i*size
			if binary.NativeEndian.Uint64(entries[i*8:])&present != 0 && at < uint64(len(program)) {
				sum += program[at]
			}
		}
	}
	runtime.KeepAlive(sum) // or nothing would have to be read
	return nil
}

// ownParts returns where the agent has the parts of its program that it does not write to.
func ownParts() ([]part, error) {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	return parseMaps(string(text), path), nil
}

// parseMaps finds the mappings of a file that are not written to in the text of /proc/pid/maps
// (Linux, Documentation/filesystems/proc.rst).
func parseMaps(text, path string) (parts []part) {
	for line := range strings.Lines(text) {
		var p part
		var allowed, device string
		var inode uint64
		_, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &p.start, &p.end, &allowed, &p.offset,
			&device, &inode)
		// The path is the rest of the line, and may have spaces.
		if err != nil || !strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+path) ||
			strings.Contains(allowed, "w") || p.end < p.start {
			continue
		}
		parts = append(parts, p)
	}
	return parts
}
