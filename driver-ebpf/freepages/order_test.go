// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// pageStructs models the struct pages of 8 GiB. Each has 64 bytes. They are in huge
// pages, as in the kernel.
type pageStructs []byte

const (
	structSize = 64
	structs    = 2 << 20
	structNext = 0 // le32: the next free block
	structFree = 4 // le32: pages of the free block, 0: in use
)

func (p pageStructs) u32(i uint32, field int) uint32 {
	return binary.NativeEndian.Uint32(p[int(i)*structSize+field:])
}

func (p pageStructs) setU32(i uint32, field int, v uint32) {
	binary.NativeEndian.PutUint32(p[int(i)*structSize+field:], v)
}

// fragmentedStructs returns free blocks of one page and of four pages in turn. Between
// two of them is a page in use. The free blocks form a ring in random order. blocks is
// their number.
func fragmentedStructs(b *testing.B) (p pageStructs, blocks int) {
	b.Helper()
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	p, err := unix.Mmap(-1, 0, structs*structSize, prot, flags)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := unix.Munmap(p); err != nil {
			b.Error(err)
		}
	})
	if err := unix.Madvise(p, unix.MADV_HUGEPAGE); err != nil {
		b.Fatal(err)
	}
	var free []uint32
	for i, pages := uint32(0), uint32(1); i+pages < structs; i, pages = i+pages+1, 5-pages {
		p.setU32(i, structFree, pages)
		free = append(free, i)
	}
	swap := func(i, j int) { free[i], free[j] = free[j], free[i] }
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(free), swap)
	for i, at := range free {
		p.setU32(at, structNext, free[(i+1)%len(free)])
	}
	return p, len(free)
}

// BenchmarkOrderOfWalk compares two ways to find all free blocks of a fragmented guest:
// along the free lists, or through all struct pages by address. The second also reads
// those of pages in use, but memory is read in order. docs/design.md draws the conclusion.
func BenchmarkOrderOfWalk(b *testing.B) {
	b.Run("lists", func(b *testing.B) {
		p, blocks := fragmentedStructs(b)
		var at uint32
		for b.Loop() {
			at = p.u32(at, structNext)
		}
		b.ReportMetric(float64(blocks), "entries/walk")
	})
	b.Run("pages", func(b *testing.B) {
		p, blocks := fragmentedStructs(b)
		var at uint32
		for b.Loop() {
			if at += max(p.u32(at, structFree), 1); at >= structs {
				at = 0
			}
		}
		b.ReportMetric(float64(2*blocks), "entries/walk")
	})
}
