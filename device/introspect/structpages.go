// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/paging"
)

// structPages reads struct pages in no order, each frame of them once. One goroutine uses it.
type structPages struct {
	k      *Kernel
	size   uint64
	frames map[uint64]frame  // by virtual page number
	large  map[uint64]uint64 // guest-physical addresses of large pages, by number
}

// frame is a frame of struct pages.
type frame struct {
	number uint64
	data   []byte
}

// Bounds on what is kept.
const (
	maxFrames  = 4096 // 16 MiB
	largeShift = 21   // large pages of 2 MiB, of which the kernel makes its memory map
)

func newStructPages(k *Kernel) *structPages {
	s := &structPages{k: k, size: uint64(k.layout.Page.Size), large: make(map[uint64]uint64)}
	s.forget()
	return s
}

// forget makes all struct pages be read anew.
func (s *structPages) forget() { s.frames = make(map[uint64]frame) }

// read returns a frame's struct page, and the frames that hold it, as [Block.Evidence].
func (s *structPages) read(pfn uint64) (p []byte, evidence [2]uint64, err error) {
	va := s.k.pageAddress(pfn)
	first, err := s.frame(va >> pageShift)
	if err != nil {
		return nil, evidence, err
	}
	p = first.data[va%paging.PageSize:]
	if uint64(len(p)) >= s.size {
		return p[:s.size], [2]uint64{first.number, first.number}, nil
	}
	second, err := s.frame(va>>pageShift + 1)
	if err != nil {
		return nil, evidence, err
	}
	p = append(p[:len(p):len(p)], second.data...)
	return p[:s.size], [2]uint64{first.number, second.number}, nil
}

func (s *structPages) frame(page uint64) (frame, error) {
	if f, ok := s.frames[page]; ok {
		return f, nil
	}
	gpa, err := s.translate(page << pageShift)
	if err != nil {
		return frame{}, err
	}
	f := frame{gpa >> pageShift, make([]byte, paging.PageSize)}
	if err := s.k.mem.Read(f.data, gpa); err != nil {
		return frame{}, fmt.Errorf("read struct pages at %#x: %w", page<<pageShift, err)
	}
	if len(s.frames) == maxFrames {
		s.forget()
	}
	s.frames[page] = f
	return f, nil
}

// translate translates an address by the kernel's page tables. It keeps the large pages.
func (s *structPages) translate(va uint64) (uint64, error) {
	const size = 1 << largeShift
	if gpa, ok := s.large[va>>largeShift]; ok {
		return gpa + va%size, nil
	}
	if m, err := s.k.space.Settled(va &^ (size - 1)); err == nil && m.Length >= size {
		s.large[va>>largeShift] = m.GPA
		return m.GPA + va%size, nil
	}
	m, err := s.k.space.Settled(va)
	return m.GPA, err
}
