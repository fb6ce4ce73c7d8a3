// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
)

// HelloSize is the length in bytes of what follows the header of HELLO.
const HelloSize = 160

const (
	helloRelease = 16
	helloReason  = helloRelease + 64
)

// Features tells what a guest's allocator does with free pages, and what its driver can do
// (section 7.1).
type Features uint32

// The features.
const (
	FeaturePagePoison  Features = 1 << 0 // free pages carry a pattern that is checked
	FeatureInitOnFree  Features = 1 << 1 // pages are zeroed when freed, not when allocated
	FeatureInitOnAlloc Features = 1 << 2 // pages are zeroed when they are allocated
	FeatureDropCache   Features = 1 << 3 // the driver can drop cold page cache
	FeaturePrograms    Features = 1 << 4 // the driver takes programs (section 9)
	FeaturePort        Features = 1 << 5 // the driver can report by the serial port (7.4)
)

// String implements fmt.Stringer: names joined by commas, "none" for 0.
func (f Features) String() string {
	var names []string
	rest := f
	for _, of := range []struct {
		bit  Features
		name string
	}{
		{FeaturePagePoison, "page-poison"}, {FeatureInitOnFree, "init-on-free"},
		{FeatureInitOnAlloc, "init-on-alloc"}, {FeatureDropCache, "drop-cache"},
		{FeaturePrograms, "programs"}, {FeaturePort, "port"},
	} {
		if f&of.bit != 0 {
			names = append(names, of.name)
		}
		rest &^= of.bit
	}
	if rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)))
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}

// Hello is how a driver introduces itself. Its Status travels in the header.
type Hello struct {
	Features Features
	MaxOrder uint8  // highest order that it will report
	RAMBytes uint64 // memory that the guest manages
	Release  string // operating system and version
	// Reason is one line for the operator: why the status is not OK; with OK why cache
	// cannot be dropped.
	Reason string
}

// Encode writes the body into p, which has at least HelloSize bytes. Strings
// that are too long are cut.
func (h *Hello) Encode(p []byte) {
	p = p[:HelloSize]
	clear(p)
	le := binary.LittleEndian
	le.PutUint32(p[0:], uint32(h.Features))
	p[4] = h.MaxOrder
	le.PutUint64(p[8:], h.RAMBytes)
	copy(p[helloRelease:helloReason], h.Release)
	copy(p[helloReason:], h.Reason)
}

// DecodeHello reads the body of HELLO. Its strings come from the guest, so
// unprintable characters are replaced: the result is safe in a log or a terminal.
func DecodeHello(p []byte) (Hello, error) {
	if len(p) < HelloSize {
		return Hello{}, fmt.Errorf("decode hello: %d bytes: %w", len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	h := Hello{
		Features: Features(le.Uint32(p[0:])),
		MaxOrder: p[4],
		RAMBytes: le.Uint64(p[8:]),
		Release:  Printable(p[helloRelease:helloReason]),
		Reason:   Printable(p[helloReason:HelloSize]),
	}
	if p[5]|p[6]|p[7] != 0 {
		return h, fmt.Errorf("decode hello: reserved field is not 0: %w", ErrMalformed)
	}
	if h.MaxOrder > MaxOrder {
		return h, fmt.Errorf("decode hello: order %d: %w", h.MaxOrder, ErrMalformed)
	}
	return h, nil
}

// Printable returns p up to its first zero byte, with '?' for what is not
// printable UTF-8.
func Printable(p []byte) string {
	p, _, _ = bytes.Cut(p, []byte{0})
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(p))
}
