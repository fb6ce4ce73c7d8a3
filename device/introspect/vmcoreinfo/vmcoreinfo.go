// SPDX-License-Identifier: Apache-2.0

// Package vmcoreinfo finds and reads VMCOREINFO: the note in which a Linux kernel
// describes itself to tools that read its memory (Linux: kernel/vmcore_info.c and
// Documentation/admin-guide/kdump/vmcoreinfo.rst).
package vmcoreinfo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// An ELF note at the beginning of a page: the length of its name, the length of
// its text, its type, its name, its text.
const (
	headerSize = 12
	nameSize   = 11
	name       = "VMCOREINFO\x00"
	textAt     = headerSize + 12 // the name is padded to whole words
)

const (
	// MaxNote bounds a note in bytes. Kernels give it one page and a little.
	MaxNote = 16 << 10
	// maxLines bounds the lines of a note; kernels write about 100.
	maxLines = 1024
)

// ErrNoNote says that memory holds no note.
var ErrNoNote = errors.New("no VMCOREINFO note")

// noteSize returns the length in bytes of the note that begins with head. It needs
// the first textAt bytes.
func noteSize(head []byte) (int, bool) {
	if len(head) < textAt || binary.LittleEndian.Uint32(head) != nameSize ||
		string(head[headerSize:][:nameSize]) != name {
		return 0, false
	}
	size := binary.LittleEndian.Uint32(head[4:])
	if size == 0 || size > MaxNote-textAt {
		return 0, false
	}
	return textAt + int(size), true
}

// Info is the contents of a note. It is the guest's word: nothing in it is proven.
type Info struct {
	Release string // OSRELEASE, as uname -r prints it

	facts map[string]string // by key, such as SYMBOL(_stext)
}

// Parse parses a note, which begins with its header.
func Parse(note []byte) (*Info, error) {
	size, ok := noteSize(note)
	if !ok || size > len(note) {
		return nil, fmt.Errorf("parse VMCOREINFO: %w", ErrNoNote)
	}
	text, _, _ := strings.Cut(string(note[textAt:size]), "\x00")
	info := &Info{facts: make(map[string]string)}
	lines := 0
	for line := range strings.Lines(text) {
		if lines++; lines > maxLines {
			return nil, fmt.Errorf("parse VMCOREINFO: more than %d lines", maxLines)
		}
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			return nil, fmt.Errorf("parse VMCOREINFO: line %.40q", line)
		}
		info.facts[key] = value
	}
	info.Release = protocol.Printable([]byte(info.facts["OSRELEASE"]))
	if info.Release == "" {
		return nil, errors.New("parse VMCOREINFO: it names no OSRELEASE")
	}
	return info, nil
}

// number parses the number of a line. A value with the prefix 0x is hexadecimal,
// whatever base says.
func (i *Info) number(key string, base int) (uint64, error) {
	text, ok := i.facts[key]
	if !ok {
		return 0, fmt.Errorf("VMCOREINFO has no %s", key)
	}
	if rest, ok := strings.CutPrefix(text, "0x"); ok {
		text, base = rest, 16
	}
	if strings.HasPrefix(text, "-") {
		n, err := strconv.ParseInt(text, base, 64)
		if err != nil {
			return 0, fmt.Errorf("VMCOREINFO's %s: %w", key, err)
		}
		return uint64(n), nil
	}
	n, err := strconv.ParseUint(text, base, 64)
	if err != nil {
		return 0, fmt.Errorf("VMCOREINFO's %s: %w", key, err)
	}
	return n, nil
}

// Symbol returns the address of a symbol.
func (i *Info) Symbol(name string) (uint64, error) { return i.number("SYMBOL("+name+")", 16) }

// Number returns a number. A negative one comes as its two's complement.
func (i *Info) Number(name string) (uint64, error) { return i.number("NUMBER("+name+")", 10) }

// Size returns the size of a type in bytes.
func (i *Info) Size(name string) (uint64, error) { return i.number("SIZE("+name+")", 10) }

// Length returns the number of elements of an array.
func (i *Info) Length(name string) (uint64, error) { return i.number("LENGTH("+name+")", 10) }

// Offset returns the offset in bytes of a field, such as "page.flags".
func (i *Info) Offset(field string) (uint64, error) { return i.number("OFFSET("+field+")", 10) }

// PageSize returns the size of the kernel's pages in bytes.
func (i *Info) PageSize() (uint64, error) { return i.number("PAGESIZE", 10) }

// Version returns the first two numbers of the release, such as 6 and 12.
func (i *Info) Version() (major, minor int, err error) {
	if n, err := fmt.Sscanf(i.Release, "%d.%d", &major, &minor); n != 2 || major < 0 || minor < 0 {
		return 0, 0, fmt.Errorf("parse release %q: %w", i.Release, err)
	}
	return major, minor, nil
}
