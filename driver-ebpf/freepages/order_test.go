// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// pageStructs stands for the struct pages of 8 GiB: 64 bytes each, in huge
// pages as the kernel maps them.
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

// fragmentedStructs alternates free blocks of one page and of four with a page
// in use. The free ones form a ring, in no order. blocks is how many there are.
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

// BenchmarkOrderOfWalk shows what memory makes of the two ways to find every
// free block of a fragmented guest: along the lists, or page by page and over
// those in use as well. docs/design.md says what follows.
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
