// SPDX-License-Identifier: Apache-2.0

// Package kallsyms reads the symbol table of a Linux kernel from the kernel's
// memory (Linux: kernel/kallsyms.c and scripts/kallsyms.c).
//
// The way in which the table stores addresses changed over time. It is not derived
// from the kernel's version. Some symbols are also in VMCOREINFO, with their
// addresses: the way that gives the same addresses is the right one.
package kallsyms

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Bounds on a table. Kernels have some hundred thousand symbols, of some dozen
// bytes each.
const (
	maxSymbols = 1 << 20
	maxNames   = 32 << 20
	maxTokens  = 64 << 10
	maxName    = 1024 // KSYM_NAME_LEN is 512
)

// Memory reads the kernel's virtual memory. [paging.Space] implements it.
type Memory interface {
	Read(p []byte, va uint64) error
}

// Note gives the addresses of the table's parts. [vmcoreinfo.Info] implements it.
type Note interface {
	Symbol(name string) (uint64, error)
}

// Table is a kernel's symbol table.
type Table struct {
	names   []byte // compressed, each after its length
	tokens  [256][]byte
	offsets []byte // 32 bits for each symbol
	at      uint64 // address of the offsets
	base    uint64 // kallsyms_relative_base
	based   bool   // the kernel has a base
	address addressing
}

// Read reads the table whose parts the note names. witnesses are symbols that the
// note has, too. At least two of them must be in the table, and all that are must
// have the address that the note gives.
func Read(mem Memory, note Note, witnesses ...string) (*Table, error) {
	t := &Table{}
	count, err := t.readParts(mem, note)
	if err != nil {
		return nil, fmt.Errorf("read kallsyms: %w", err)
	}
	if err := t.readNames(mem, note, count); err != nil {
		return nil, fmt.Errorf("read kallsyms: %w", err)
	}
	if err := t.chooseAddressing(note, witnesses); err != nil {
		return nil, fmt.Errorf("read kallsyms: %w", err)
	}
	return t, nil
}

// readParts reads all but the names, and returns the number of symbols.
func (t *Table) readParts(mem Memory, note Note) (int, error) {
	var word [8]byte
	at, err := note.Symbol("kallsyms_num_syms")
	if err != nil {
		return 0, err
	}
	if err := mem.Read(word[:4], at); err != nil {
		return 0, err
	}
	count := binary.LittleEndian.Uint32(word[:])
	if count == 0 || count > maxSymbols {
		return 0, fmt.Errorf("%d symbols", count)
	}
	if at, err := note.Symbol("kallsyms_relative_base"); err == nil {
		if err := mem.Read(word[:], at); err != nil {
			return 0, err
		}
		t.base, t.based = binary.LittleEndian.Uint64(word[:]), true
	}
	if t.at, err = note.Symbol("kallsyms_offsets"); err != nil {
		return 0, err
	}
	t.offsets = make([]byte, 4*count)
	if err := mem.Read(t.offsets, t.at); err != nil {
		return 0, err
	}
	return int(count), t.readTokens(mem, note)
}

// readTokens reads the token that each byte of a compressed name stands for.
func (t *Table) readTokens(mem Memory, note Note) error {
	at, err := note.Symbol("kallsyms_token_index")
	if err != nil {
		return err
	}
	var index [512]byte
	if err := mem.Read(index[:], at); err != nil {
		return err
	}
	if at, err = note.Symbol("kallsyms_token_table"); err != nil {
		return err
	}
	last := int(binary.LittleEndian.Uint16(index[510:]))
	// The length of the last token is not known yet, so this may read past the
	// table's end. That does no harm.
	table := make([]byte, min(last+maxName, maxTokens))
	if err := mem.Read(table, at); err != nil {
		return err
	}
	for i := range t.tokens {
		start := int(binary.LittleEndian.Uint16(index[2*i:]))
		if start >= len(table) {
			return fmt.Errorf("token %d is outside of the table", i)
		}
		length := bytes.IndexByte(table[start:], 0)
		if length < 0 || length > maxName {
			return fmt.Errorf("token %d has no end", i)
		}
		t.tokens[i] = table[start : start+length]
	}
	return nil
}

// readNames reads count names.
func (t *Table) readNames(mem Memory, note Note, count int) error {
	at, err := note.Symbol("kallsyms_names")
	if err != nil {
		return err
	}
	const chunk = 64 << 10
	end := 0 // of the names that are complete
	for n := 0; n < count; {
		size, ok := nameLength(t.names[end:])
		if ok && size < 3 {
			return fmt.Errorf("name %d is empty", n)
		}
		if ok && end+size <= len(t.names) {
			end += size
			n++
			continue
		}
		if len(t.names) >= maxNames {
			return fmt.Errorf("names of more than %d bytes", maxNames)
		}
		// Up to the end of a page: the next page may not be mapped.
		more := make([]byte, chunk-(at+uint64(len(t.names)))%4096)
		if err := mem.Read(more, at+uint64(len(t.names))); err != nil {
			return err
		}
		t.names = append(t.names, more...)
	}
	t.names = t.names[:end]
	return nil
}

// nameLength returns the length of the name that b begins with, together with its
// length field. That has one byte, or since Linux 6.1 two for long names.
func nameLength(b []byte) (int, bool) {
	_, size, ok := split(b)
	return size, ok
}

// split returns the offsets where the bytes of the first name in b begin and end.
func split(b []byte) (start, end int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	if b[0]&0x80 == 0 {
		return 1, 1 + int(b[0]), true
	}
	if len(b) < 2 {
		return 0, 0, false
	}
	return 2, 2 + int(b[0]&0x7f) + int(b[1])<<7, true
}

// ErrNoSymbol says that a kernel has no symbol with a name.
var ErrNoSymbol = errors.New("no such symbol")

// ErrAmbiguous says that several symbols of a kernel have the same name.
var ErrAmbiguous = errors.New("several symbols have this name")

// Symbols are addresses by name.
type Symbols map[string][]uint64

// Address returns the address of a symbol that was passed to Find. The error wraps
// ErrNoSymbol or ErrAmbiguous.
func (s Symbols) Address(name string) (uint64, error) {
	switch found := s[name]; len(found) {
	case 0:
		return 0, fmt.Errorf("look up %s: %w", name, ErrNoSymbol)
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("look up %s: %w", name, ErrAmbiguous)
}

// Find looks up symbols by name, in one pass over the table.
func (t *Table) Find(names ...string) Symbols {
	wanted := make(Symbols, len(names))
	for _, name := range names {
		wanted[name] = nil
	}
	t.each(func(i int, name []byte) {
		if found, ok := wanted[string(name)]; ok && len(found) < 2 {
			wanted[string(name)] = append(found, t.address(t, i))
		}
	})
	return wanted
}

// each calls f for each symbol. The name is valid until f returns.
func (t *Table) each(f func(i int, name []byte)) {
	var name [maxName]byte
	rest := t.names
	for i := 0; i < len(t.offsets)/4; i++ {
		start, end, ok := split(rest)
		if !ok || end > len(rest) {
			return
		}
		n := 0
		for _, code := range rest[start:end] {
			n += copy(name[n:], t.tokens[code])
		}
		rest = rest[end:]
		if n > 1 { // the first byte is the symbol's type
			f(i, name[1:n])
		}
	}
}
