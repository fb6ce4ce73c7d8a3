// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"encoding/binary"

	"github.com/fbpp-project/fbpp/device/introspect/paging"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
	"github.com/fbpp-project/fbpp/device/introspect/vmcoreinfo"
)

// Bounds on the search within an image, in bytes and pointers. Kernels map some
// dozen MiB, and some thousand of their words are addresses of pages.
const (
	maxImage    = 256 << 20
	maxPointers = 64 << 10
)

// eachNoteOfKernel calls f for the notes that variables of a kernel point to, until
// f returns false. One of these variables is vmcoreinfo_note. The trampoline's page
// tables lead to the kernel's image: since Linux 5.17 they map all of the kernel's
// memory (51523ed1c267). Reading the image is much faster than reading all memory.
func (a *anchors) eachNoteOfKernel(
	ctx context.Context, mem *physmem.Memory, f func(*vmcoreinfo.Note) bool,
) {
	for _, root := range a.roots {
		for _, levels := range []int{4, 5} {
			space, err := paging.NewSpace(mem, root, levels)
			if err != nil {
				continue
			}
			s := search{mem: mem, space: space, seen: make(map[uint64]bool), found: f}
			if !s.image(ctx) {
				return
			}
		}
	}
}

// search looks for notes through the pointers in one kernel image.
type search struct {
	mem   *physmem.Memory
	space *paging.Space
	seen  map[uint64]bool // pointers that were followed
	found func(*vmcoreinfo.Note) bool
}

// image follows the pointers in the mapped parts of the image. It returns false
// when the search is over.
func (s *search) image(ctx context.Context) bool {
	buf := make([]byte, 64<<10)
	read := 0
	for va := uint64(imageStart); va < imageEnd && read < maxImage; {
		if ctx.Err() != nil {
			return false
		}
		m, err := s.space.Translate(va)
		if err != nil {
			va += paging.PageSize
			if va%(2<<20) == paging.PageSize { // the image begins at 2 MiB
				va += 2<<20 - paging.PageSize
			}
			continue
		}
		part := buf[:min(uint64(len(buf)), m.Length, imageEnd-va)]
		if s.mem.Read(part, m.GPA) == nil && !s.words(part) {
			return false
		}
		va, read = va+uint64(len(part)), read+len(part)
	}
	return true
}

// words follows the pointers in a part of an image. It returns false when the
// search is over.
func (s *search) words(part []byte) bool {
	for ; len(part) >= 8; part = part[8:] {
		word := binary.LittleEndian.Uint64(part)
		// The note has a page of its own, in the direct map. So its address is that
		// of a page, in the upper half, and not in the image.
		if word%paging.PageSize != 0 || word>>56 != 0xff || word >= imageStart {
			continue
		}
		if s.seen[word] || len(s.seen) >= maxPointers {
			continue
		}
		s.seen[word] = true
		m, err := s.space.Translate(word)
		if err != nil {
			continue
		}
		note, err := vmcoreinfo.ReadAt(s.mem, m.GPA)
		if err == nil && !s.found(note) {
			return false
		}
	}
	return true
}
