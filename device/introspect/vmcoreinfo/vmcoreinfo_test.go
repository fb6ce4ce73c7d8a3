// SPDX-License-Identifier: Apache-2.0

package vmcoreinfo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

const text = `OSRELEASE=6.12.117+deb13-cloud-amd64
BUILD-ID=3bde3ce03156c39bec3310fbdd6bd14bfbefb62e
PAGESIZE=4096
SYMBOL(_stext)=ffffffffbb000000
OFFSET(page.flags)=0
SIZE(page)=64
LENGTH(node_data)=1024
NUMBER(phys_base)=-855638016
NUMBER(VMALLOC_START)=0xff8c3e1ec0000000
NUMBER(broken)=x
`

// note returns a note with that text.
func note(text string) []byte {
	b := make([]byte, textAt, textAt+len(text))
	binary.LittleEndian.PutUint32(b, nameSize)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(text)))
	copy(b[headerSize:], name)
	return append(b, text...)
}

// The release is shown to operators, and a guest may write anything there.
func TestTheReleaseIsPrintable(t *testing.T) {
	info, err := Parse(note("OSRELEASE=6.12\x1b[2J\xff\r\nPAGESIZE=4096\n"))
	if err != nil || info.Release != "6.12?[2J??" {
		t.Errorf("release %q, %v", info.Release, err)
	}
}

func TestParse(t *testing.T) {
	info, err := Parse(note(text))
	if err != nil {
		t.Fatal(err)
	}
	if info.Release != "6.12.117+deb13-cloud-amd64" {
		t.Errorf("release %q", info.Release)
	}
	if major, minor, err := info.Version(); err != nil || major != 6 || minor != 12 {
		t.Errorf("version %d.%d, %v", major, minor, err)
	}
	base := int64(-855638016)
	for name, tc := range map[string]struct {
		f    func() (uint64, error)
		want uint64
	}{
		"symbol": {
			func() (uint64, error) { return info.Symbol("_stext") }, 0xffffffffbb000000,
		},
		"offset": {func() (uint64, error) { return info.Offset("page.flags") }, 0},
		"size":   {func() (uint64, error) { return info.Size("page") }, 64},
		"length": {func() (uint64, error) { return info.Length("node_data") }, 1024},
		"negative number": {
			func() (uint64, error) { return info.Number("phys_base") }, uint64(base),
		},
		"hex number": {
			func() (uint64, error) { return info.Number("VMALLOC_START") }, 0xff8c3e1ec0000000,
		},
		"page size": {info.PageSize, 4096},
	} {
		if got, err := tc.f(); err != nil || got != tc.want {
			t.Errorf("%s: %#x, %v, want %#x", name, got, err, tc.want)
		}
	}
	for _, name := range []string{"broken", "absent"} {
		if _, err := info.Number(name); err == nil {
			t.Errorf("number %s has a value", name)
		}
	}
}

func TestInvalidNotesAreRefused(t *testing.T) {
	long := note(strings.Repeat("A=1\n", maxLines+1))
	cut := note(text)[:100]
	other := note(text)
	other[headerSize] = 'X'
	huge := note(text)
	binary.LittleEndian.PutUint32(huge[4:], 1<<31)
	for name, raw := range map[string][]byte{
		"empty": nil, "header only": note(text)[:textAt], "cut": cut, "another name": other,
		"huge":           huge,
		"too many lines": long, "no release": note("PAGESIZE=4096\n"),
		"no value": note("OSRELEASE=1\nx\n"),
	} {
		if _, err := Parse(raw); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func mustMemory(t *testing.T, content []byte) *physmem.Memory {
	t.Helper()
	m, err := physmem.New([]physmem.Region{
		{GPA: 1 << 20, Size: uint64(len(content)), Source: bytes.NewReader(content)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEachFindsNotesAtPages(t *testing.T) {
	content := make([]byte, 10*pageSize)
	copy(content[2*pageSize:], note(text))
	copy(content[5*pageSize+8:], note(text)) // not at a page's beginning
	copy(content[7*pageSize:], note("no release"))
	copy(content[8*pageSize:], note("OSRELEASE=5\n"))
	m := mustMemory(t, content)
	var found []uint64
	err := Each(t.Context(), m, func(n *Note) bool {
		found = append(found, n.GPA-1<<20)
		return true
	})
	if want := []uint64{2 * pageSize, 8 * pageSize}; err != nil || !slices.Equal(found, want) {
		t.Fatalf("%#x, %v", found, err)
	}
	count := 0
	err = Each(t.Context(), m, func(*Note) bool {
		count++
		return false
	})
	if err != nil || count != 1 {
		t.Fatalf("%d notes, %v", count, err)
	}
	n, err := ReadAt(m, 1<<20+2*pageSize)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := n.Same(m); err != nil || !same {
		t.Fatalf("%v, %v", same, err)
	}
	content[2*pageSize+100]++
	if same, err := n.Same(m); err != nil || same {
		t.Fatalf("%v, %v", same, err)
	}
	if _, err := ReadAt(m, 1<<20); !errors.Is(err, ErrNoNote) {
		t.Fatal(err)
	}
	if _, err := ReadAt(m, 0); !errors.Is(err, physmem.ErrNoRAM) {
		t.Fatal(err)
	}
}

// endless is zeroes without end.
type endless struct{}

func (endless) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

var _ io.ReaderAt = endless{}

func TestEachEndsWithItsContext(t *testing.T) {
	m, err := physmem.New([]physmem.Region{{Size: 1 << 50, Source: endless{}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Each(ctx, m, func(*Note) bool { return true }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(note(text))
	f.Add(note("OSRELEASE=\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		info, err := Parse(raw)
		if err != nil {
			return
		}
		if info.Release == "" {
			t.Fatal("a note without a release")
		}
		// None of these may panic.
		_, _, _ = info.Version()
		for _, f := range []func(string) (uint64, error){
			info.Symbol, info.Number, info.Size, info.Length, info.Offset,
		} {
			_, _ = f("x")
		}
	})
}
