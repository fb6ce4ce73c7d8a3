// SPDX-License-Identifier: Apache-2.0

// Package paging translates virtual addresses of a guest by its page tables, as
// an x86-64 processor does (Intel SDM volume 3, chapter 4.5).
package paging

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors of a translation.
var (
	ErrNotMapped = errors.New("address is not mapped")
	ErrUnsettled = errors.New("its page tables change all the time")
)

// PageSize is the smallest page, and the size of a table, in bytes.
const PageSize = 4096

const (
	entrySize  = 8
	tableIndex = 1<<9 - 1
	present    = 1 << 0
	marks      = 1<<5 | 1<<6 // the flags accessed and dirty, which processors set
	large      = 1 << 7      // the entry maps a page of 2 MiB or 1 GiB
	frameMask  = (1<<52 - 1) &^ (PageSize - 1)
)

// Physical reads physical memory. [physmem.Memory] implements it.
type Physical interface {
	Read(p []byte, gpa uint64) error
}

// maxLevels is the largest number of levels of page tables.
const maxLevels = 5

// Mapping is the result of a translation.
type Mapping struct {
	GPA    uint64 // guest-physical address
	Length uint64 // bytes from GPA to the end of its page, of any size
}

// path is the entries that led to a mapping, by level, without marks.
type path [maxLevels]uint64

// Space is an address space. It caches nothing: each translation reads the guest's
// tables. It is safe for concurrent use if its memory is.
type Space struct {
	mem    Physical
	root   uint64 // guest-physical address of the top table
	levels int
}

// NewSpace returns the address space of the page tables with that root, a
// guest-physical address. levels is 4 or 5.
func NewSpace(mem Physical, root uint64, levels int) (*Space, error) {
	if levels != 4 && levels != 5 {
		return nil, fmt.Errorf("use page tables of %d levels: neither 4 nor 5", levels)
	}
	if root&^uint64(frameMask) != 0 {
		return nil, fmt.Errorf("use page tables at %#x: not the address of a table", root)
	}
	return &Space{mem: mem, root: root, levels: levels}, nil
}

// In returns the same page tables, read from another description of the memory.
func (s *Space) In(mem Physical) *Space {
	return &Space{mem: mem, root: s.root, levels: s.levels}
}

// Root returns the guest-physical address of the top table.
func (s *Space) Root() uint64 { return s.root }

// canonical says whether an address is canonical: all bits above those that the
// tables translate equal the highest of these.
func (s *Space) canonical(va uint64) bool {
	shift := 64 - (12 + 9*s.levels)
	return uint64(int64(va<<shift)>>shift) == va
}

// Translate translates an address by one walk of the tables. The error wraps
// ErrNotMapped, or is that of reading a table.
func (s *Space) Translate(va uint64) (Mapping, error) {
	m, _, err := s.walk(va)
	return m, err
}

// maxWalks bounds how often Settled walks tables that change.
const maxWalks = 8

// Settled translates an address while the guest changes its tables. It walks them
// until two walks in a row find the same entries. Then the last entry was read
// while the entries above it led to its table. A single walk could read it from a
// table that was freed meanwhile and used for something else. The dirty log cannot
// show this: with EPT, processors mark page tables as written when they only walk
// them (Intel SDM volume 3, "Accessed and Dirty Flags for EPT"). The error wraps
// ErrUnsettled when the tables keep changing.
func (s *Space) Settled(va uint64) (Mapping, error) {
	m, entries, err := s.walk(va)
	for range maxWalks {
		if err != nil {
			return m, err
		}
		before := entries
		if m, entries, err = s.walk(va); err == nil && entries == before {
			return m, nil
		}
	}
	return m, fmt.Errorf("translate %#x: %w", va, ErrUnsettled)
}

// walk reads the tables once.
func (s *Space) walk(va uint64) (m Mapping, entries path, err error) {
	if !s.canonical(va) {
		return m, entries, fmt.Errorf("translate %#x: %w", va, ErrNotMapped)
	}
	table := s.root
	for level := s.levels - 1; level >= 0; level-- {
		shift := 12 + 9*level
		var entry [entrySize]byte
		if err := s.mem.Read(entry[:], table+va>>shift&tableIndex*entrySize); err != nil {
			return m, entries, fmt.Errorf("translate %#x: %w", va, err)
		}
		e := binary.LittleEndian.Uint64(entry[:])
		if e&present == 0 || (level > 2 && e&large != 0) {
			return m, entries, fmt.Errorf("translate %#x: %w", va, ErrNotMapped)
		}
		entries[level] = e &^ marks
		if level == 0 || e&large != 0 {
			size := uint64(1) << shift
			within := va & (size - 1)
			// In the entry of a large page the low address bits are flags.
			m.GPA = e&frameMask&^(size-1) | within
			m.Length = size - within
			return m, entries, nil
		}
		table = e & frameMask
	}
	return m, entries, fmt.Errorf("translate %#x: %w", va, ErrNotMapped) // not reached
}

// Read fills p with the bytes from va on.
func (s *Space) Read(p []byte, va uint64) error {
	for len(p) > 0 {
		m, err := s.Translate(va)
		if err != nil {
			return err
		}
		n := min(uint64(len(p)), m.Length)
		if err := s.mem.Read(p[:n], m.GPA); err != nil {
			return fmt.Errorf("read %#x: %w", va, err)
		}
		p, va = p[n:], va+n
	}
	return nil
}

// Uint64 reads a little-endian word of 8 bytes.
func (s *Space) Uint64(va uint64) (uint64, error) {
	var word [8]byte
	err := s.Read(word[:], va)
	return binary.LittleEndian.Uint64(word[:]), err
}

// Uint32 reads a little-endian word of 4 bytes.
func (s *Space) Uint32(va uint64) (uint32, error) {
	var half [4]byte
	err := s.Read(half[:], va)
	return binary.LittleEndian.Uint32(half[:]), err
}

// String reads a string that ends with a zero byte. The string and the zero have
// at most limit bytes.
func (s *Space) String(va uint64, limit int) (string, error) {
	var text []byte
	for len(text) < limit {
		// Up to the end of the page: the next page may not be mapped.
		part := make([]byte, min(uint64(limit-len(text)), PageSize-va%PageSize, 64))
		if err := s.Read(part, va); err != nil {
			return "", err
		}
		for i, c := range part {
			if c == 0 {
				return string(append(text, part[:i]...)), nil
			}
		}
		text, va = append(text, part...), va+uint64(len(part))
	}
	return "", fmt.Errorf("read the string at %#x: longer than %d bytes",
		va-uint64(len(text)), limit)
}
