// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Of linux/btf.h.
const (
	btfMagic    = 0xeb9f
	btfHeader   = 24
	btfType     = 12 // without what follows for some kinds
	btfVariable = 12 // of a section
	kindVar     = 14
	kindDatasec = 15
)

// errTypes says that the object's BTF is not what a compiler makes.
var errTypes = errors.New("its BTF is malformed")

// types is the object's BTF as the kernel takes it.
type types struct {
	data  []byte
	names []byte   // the strings
	all   [][]byte // the types, from number 1 on
}

// readTypes reads the BTF of an object. Numbers of types and places of strings stay as they are:
// the records in .BTF.ext refer to them. But a compiler leaves to the loader how large sections
// are, and where their variables lie.
func readTypes(o *object) (*types, error) {
	data, err := o.section(".BTF")
	if err != nil {
		return nil, err
	}
	t := &types{data: bytes.Clone(data)}
	if len(data) < btfHeader || binary.LittleEndian.Uint16(data) != btfMagic {
		return nil, errTypes
	}
	var ok bool
	if t.names, ok = table(t.data, 16); !ok {
		return nil, errTypes
	}
	rest, ok := table(t.data, 8)
	for ok && len(rest) > 0 {
		var size uint64
		if size, ok = sizeOf(rest); ok {
			t.all, rest = append(t.all, rest[:size]), rest[size:]
		}
	}
	if !ok {
		return nil, errTypes
	}
	places := o.places()
	for _, one := range t.all {
		if kindOf(one) != kindDatasec {
			continue
		}
		section := o.file.Section(t.name(one))
		if section == nil {
			return nil, fmt.Errorf("section %q: %w", t.name(one), errTypes)
		}
		put32(one[8:], uint32(section.Size))
		if !t.place(one[btfType:], places) {
			return nil, errTypes
		}
	}
	return t, nil
}

// place writes where the variables of a section lie, in that order.
func (t *types) place(variables []byte, places map[string]uint32) bool {
	var sorted [][]byte
	for v := range slices.Chunk(variables, btfVariable) {
		id := get32(v)
		if id == 0 || uint64(id) > uint64(len(t.all)) {
			return false
		}
		put32(v[4:], places[t.name(t.all[id-1])])
		sorted = append(sorted, slices.Clone(v))
	}
	slices.SortStableFunc(sorted, func(a, b []byte) int {
		return cmp.Compare(get32(a[4:]), get32(b[4:]))
	})
	copy(variables, slices.Concat(sorted...))
	return true
}

// name returns the name of a type.
func (t *types) name(one []byte) string { return t.text(get32(one)) }

// text returns the string at a place.
func (t *types) text(at uint32) string {
	if uint64(at) >= uint64(len(t.names)) {
		return ""
	}
	name, _, _ := bytes.Cut(t.names[at:], []byte{0})
	return string(name)
}

func kindOf(one []byte) uint32 { return get32(one[4:]) >> 24 & 0x1f }

// sizeOf returns the size of the first type in p. It is false if the type is unknown, or longer
// than p.
func sizeOf(p []byte) (size uint64, ok bool) {
	if len(p) < btfType {
		return 0, false
	}
	members := uint64(get32(p[4:]) & 0xffff)
	switch kindOf(p) {
	case 1, kindVar, 17: // an integer, a declaration's tag
		size = 4
	case 2, 7, 8, 9, 10, 11, 12, 16, 18: // pointers and other types of one type
	case 3: // an array
		size = 12
	case 4, 5, kindDatasec, 19: // structures, an enumeration of 64 bits
		size = 12 * members
	case 6, 13: // an enumeration, a prototype
		size = 8 * members
	default:
		return 0, false
	}
	size += btfType
	return size, size <= uint64(len(p))
}

// table returns a part of .BTF or .BTF.ext: at that place the header has where it begins, and how
// long it is.
func table(data []byte, at int) ([]byte, bool) {
	begin := uint64(get32(data[4:])) + uint64(get32(data[at:]))
	end := begin + uint64(get32(data[at+4:]))
	if end > uint64(len(data)) {
		return nil, false
	}
	return data[begin:end:end], true
}

func get32(p []byte) uint32    { return binary.LittleEndian.Uint32(p) }
func put32(p []byte, v uint32) { binary.LittleEndian.PutUint32(p, v) }
