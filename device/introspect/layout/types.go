// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// maxNesting bounds how deep structures without a name are nested.
const maxNesting = 8

// errNoMember says that a structure has no such member.
var errNoMember = errors.New("no such member")

// types looks up types of the kernel.
type types struct{ spec *btf.Spec }

// structure is a struct of the kernel.
type structure struct{ *btf.Struct }

func (t types) structure(name string) (structure, error) {
	var s *btf.Struct
	if err := t.spec.TypeByName(name, &s); err != nil {
		return structure{}, fmt.Errorf("look up struct %s: %w", name, err)
	}
	if s.Size == 0 || s.Size > 16<<20 {
		return structure{}, fmt.Errorf("struct %s has %d bytes", name, s.Size)
	}
	return structure{s}, nil
}

func (s structure) size() int { return int(s.Size) }

// enum returns a value of an enumeration.
func (t types) enum(name, value string) (uint64, error) {
	var e *btf.Enum
	if err := t.spec.TypeByName(name, &e); err != nil {
		return 0, fmt.Errorf("look up enum %s: %w", name, err)
	}
	for _, v := range e.Values {
		if v.Name == value {
			return v.Value, nil
		}
	}
	return 0, fmt.Errorf("enum %s: %w: %s", name, errNoMember, value)
}

// member returns the offset in bytes and the type of a member. It also looks into
// members without a name.
func (s structure) member(name string) (int, btf.Type, error) {
	offset, typ := findMember(s.Members, name, 0)
	if typ == nil {
		return 0, nil, fmt.Errorf("struct %s: %w: %s", s.Name, errNoMember, name)
	}
	if offset%8 != 0 {
		return 0, nil, fmt.Errorf("struct %s: %s is at bit %d", s.Name, name, offset)
	}
	return int(offset / 8), typ, nil
}

func findMember(members []btf.Member, name string, depth int) (btf.Bits, btf.Type) {
	if depth > maxNesting {
		return 0, nil
	}
	for _, m := range members {
		if m.Name == name {
			return m.Offset, m.Type
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if offset, typ := findMember(inner, name, depth+1); typ != nil {
			return m.Offset + offset, typ
		}
	}
	return 0, nil
}

// array returns a member that is an array.
func (s structure) array(name string) (*btf.Array, error) {
	_, typ, err := s.member(name)
	if err != nil {
		return nil, err
	}
	array, ok := btf.UnderlyingType(typ).(*btf.Array)
	if !ok {
		return nil, fmt.Errorf("struct %s: %s is no array", s.Name, name)
	}
	return array, nil
}

// offsets are members to look up. size is how many bytes are read there.
type offsets []struct {
	at   *int
	name string
	size int
}

// read looks up all members, which must lie within the structure.
func (o offsets) read(s structure) error {
	for _, field := range o {
		at, _, err := s.member(field.name)
		if err != nil {
			return err
		}
		if at < 0 || field.size < 0 || at+field.size > s.size() {
			return fmt.Errorf("struct %s: %s lies outside", s.Name, field.name)
		}
		*field.at = at
	}
	return nil
}
