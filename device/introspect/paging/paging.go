// SPDX-License-Identifier: Apache-2.0

// Package paging translates a guest kernel's virtual addresses by its page
// tables, as an x86-64 processor does (Intel SDM volume 3, chapter 4.5).
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
	marks      = 1<<5 | 1<<6 // accessed and dirty, which processors set
	large      = 1 << 7      // the entry maps a page of 2 MiB or 1 GiB
	frameMask  = (1<<52 - 1) &^ (PageSize - 1)
)

// Physical reads physical memory; [physmem.Memory] does.
type Physical interface {
	Read(p []byte, gpa uint64) error
}

// maxLevels is the depth of the deepest tables.
const maxLevels = 5

// Mapping is a translation.
type Mapping struct {
	GPA    uint64 // of the address that was asked for
	Length uint64 // bytes from there to the end of its page, of whatever size
}

// path are the entries that led to a mapping, without marks.
type path [maxLevels]uint64

// Space is an address space. It reads the guest's tables each time. It is safe
// for concurrent use if its memory is.
type Space struct {
	mem    Physical
	root   uint64 // address of the top table
	levels int
}

// NewSpace returns the space of the tables with a root, of 4 or 5 levels.
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

// Root returns the address of the top table.
func (s *Space) Root() uint64 { return s.root }

// canonical tells whether an address is one: the bits above the tables' reach
// equal the highest within it.
func (s *Space) canonical(va uint64) bool {
	shift := 64 - (12 + 9*s.levels)
	return uint64(int64(va<<shift)>>shift) == va
}

// Translate finds where an address is.
func (s *Space) Translate(va uint64) (Mapping, error) {
	m, _, err := s.walk(va)
	return m, err
}

// maxWalks bounds how often tables are walked that change.
const maxWalks = 8

// Settled finds where an address is while the guest runs: it walks the tables
// until it finds the same entries twice. So the last entry was read while those
// before it led to it, and not out of a table that had been given away. That the
// dirty log calls a table unwritten is no use for this: processors mark tables as
// written that they only walk (Intel SDM volume 3, "Accessed and Dirty Flags for EPT").
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
			// Low bits of a large page's frame are flags.
			m.GPA = e&frameMask&^(size-1) | within
			m.Length = size - within
			return m, entries, nil
		}
		table = e & frameMask
	}
	return m, entries, fmt.Errorf("translate %#x: %w", va, ErrNotMapped) // not reached
}

// Read fills p from a virtual address on.
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

// Uint64 reads a word.
func (s *Space) Uint64(va uint64) (uint64, error) {
	var word [8]byte
	err := s.Read(word[:], va)
	return binary.LittleEndian.Uint64(word[:]), err
}

// Uint32 reads half a word.
func (s *Space) Uint32(va uint64) (uint32, error) {
	var half [4]byte
	err := s.Read(half[:], va)
	return binary.LittleEndian.Uint32(half[:]), err
}

// String reads a string that ends with a zero, of at most limit bytes.
func (s *Space) String(va uint64, limit int) (string, error) {
	var text []byte
	for len(text) < limit {
		// Up to the end of a page: the next may not be there.
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
