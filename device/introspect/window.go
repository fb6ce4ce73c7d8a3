// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/paging"
)

// How many struct pages are read at once. After a large free block most struct
// pages are skipped. So reads begin small, and grow while they are consecutive.
const (
	fewPages  = 64
	manyPages = 4096
)

// window is the part of the memory map that was read last. One goroutine uses it.
type window struct {
	k     *Kernel
	size  uint64 // of a struct page
	buf   []byte
	first uint64 // page frame number of the first struct page in buf
	count uint64
	gpa   uint64 // guest-physical address of the first
	chunk uint64 // how many to read next

	mapping paging.Mapping // the last translation, of address
	address uint64
}

func newWindow(k *Kernel) *window {
	size := uint64(k.layout.Page.Size)
	return &window{k: k, size: size, buf: make([]byte, manyPages*size), chunk: fewPages}
}

// from returns the struct pages from pfn on, at least one. It reads none at or
// after end.
func (w *window) from(pfn, end uint64) ([]byte, error) {
	if pfn-w.first >= w.count { // also where pfn is below first
		if err := w.fill(pfn, end); err != nil {
			return nil, err
		}
	}
	skip := (pfn - w.first) * w.size
	return w.buf[skip : w.count*w.size], nil
}

// fill reads struct pages from pfn on, as many as lie in one page, of any size, of
// the guest's page tables.
func (w *window) fill(pfn, end uint64) error {
	if pfn == w.first+w.count && w.count > 0 {
		w.chunk = min(2*w.chunk, manyPages)
	} else {
		w.chunk = fewPages
	}
	m, err := w.translate(w.k.pageAddress(pfn))
	if err != nil {
		return err
	}
	n := min(w.chunk, end-pfn, m.Length/w.size)
	w.first, w.count, w.gpa = pfn, 0, m.GPA
	if n == 0 { // the struct page lies across two pages
		n = 1
		err = w.k.space.Read(w.buf[:w.size], w.k.pageAddress(pfn))
	} else {
		err = w.k.mem.Read(w.buf[:n*w.size], m.GPA)
	}
	if err != nil {
		return fmt.Errorf("read struct page of frame %#x: %w", pfn, err)
	}
	w.count = n
	return nil
}

// translate translates an address by the kernel's page tables. It keeps the last
// result for addresses in the same page.
func (w *window) translate(address uint64) (paging.Mapping, error) {
	if ahead := address - w.address; w.mapping.Length > 0 && address >= w.address &&
		ahead < w.mapping.Length {
		m := w.mapping
		m.GPA, m.Length = m.GPA+ahead, m.Length-ahead
		return m, nil
	}
	m, err := w.k.space.Settled(address)
	if err != nil {
		return m, err
	}
	w.mapping, w.address = m, address
	return m, nil
}

// frames returns the frames that hold a struct page of the window. If it is only
// one frame, both are equal.
func (w *window) frames(pfn uint64) ([2]uint64, error) {
	at := w.gpa + (pfn-w.first)*w.size
	if at>>pageShift == (at+w.size-1)>>pageShift {
		return [2]uint64{at >> pageShift, at >> pageShift}, nil
	}
	last, err := w.k.space.Settled(w.k.pageAddress(pfn) + w.size - 1)
	return [2]uint64{at >> pageShift, last.GPA >> pageShift}, err
}
