// SPDX-License-Identifier: Apache-2.0

package freeset

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// benchBatch is how many blocks are made for one measured call of Add. All blocks
// of 4 TiB in single pages would take 16 GiB, so they are made in batches.
const benchBatch = 1 << 16

// benchCall is how many blocks go to one call, as in a source.
const benchCall = 256

// BenchmarkAdd adds the blocks of a guest whose memory is all free. All blocks
// have one order. They come sorted by address or scattered, and go to the Set itself or
// to an Adder. It reports blocks per second, the time for a whole guest, and the memory
// that is allocated: in MiB, and in bits per page of the guest.
func BenchmarkAdd(b *testing.B) {
	for _, gib := range []uint64{8, 256, 1 << 10, 4 << 10} {
		for _, order := range []uint8{0, 1, 3, 6, 10} {
			for _, way := range []struct {
				name   string
				stride uint64
			}{{"inorder", 1}, {"scattered", 0x9e3779b1}} {
				name := fmt.Sprintf("guest=%dGiB/order=%d/%s", gib, order, way.name)
				b.Run(name+"/to=set", func(b *testing.B) {
					benchAdd(b, gib<<30, order, way.stride, func(s *Set) adder { return plain{s} })
				})
				b.Run(name+"/to=adder", func(b *testing.B) {
					benchAdd(b, gib<<30, order, way.stride, func(s *Set) adder { return NewAdder(s) })
				})
			}
		}
	}
}

type adder interface {
	Add(blocks []Block, overlapOK bool) (done int, outside uint64, err error)
	Flush() error
}

// plain is a Set without bins.
type plain struct{ *Set }

func (plain) Flush() error { return nil }

// benchAdd visits block i*stride, modulo the number of blocks, a power of two;
// stride is odd.
func benchAdd(b *testing.B, size uint64, order uint8, stride uint64, to func(*Set) adder) {
	batch := make([]Block, benchBatch)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := New([]Range{{0, size}})
	blocks := size >> FrameShift >> order
	var adding time.Duration
	var added uint64
	for b.Loop() {
		s.Reset()
		a := to(s)
		for i := uint64(0); i < blocks; {
			n := min(benchBatch, blocks-i)
			for j := range n {
				block := (i + j) * stride & (blocks - 1)
				batch[j] = Block{block << order, 1 << order}
			}
			began := time.Now()
			for at := uint64(0); at < n; at += benchCall {
				if _, _, err := a.Add(batch[at:min(at+benchCall, n)], false); err != nil {
					b.Fatal(err)
				}
			}
			adding += time.Since(began)
			added, i = added+n, i+n
		}
		began := time.Now()
		if err := a.Flush(); err != nil {
			b.Fatal(err)
		}
		adding += time.Since(began)
		if s.Frames() != s.Capacity() {
			b.Fatalf("%d of %d frames are free", s.Frames(), s.Capacity())
		}
		if after.TotalAlloc == 0 {
			runtime.ReadMemStats(&after) // the set allocates in the first round only
		}
	}
	taken := float64(after.TotalAlloc - before.TotalAlloc)
	b.ReportMetric(0, "ns/op") // it would include making the blocks
	b.ReportMetric(float64(added)/adding.Seconds(), "blocks/s")
	b.ReportMetric(adding.Seconds()/float64(added)*float64(blocks)*1e3, "ms/guest")
	b.ReportMetric(taken/(1<<20), "MiB")
	b.ReportMetric(taken*8/float64(size>>FrameShift), "bits/page")
}

// BenchmarkRanges reads the ranges of a guest in which every other page is free.
// No guest can have more ranges.
func BenchmarkRanges(b *testing.B) {
	const pages = 1 << 21
	s := New([]Range{{0, pages << FrameShift}})
	for i := uint64(0); i < pages; i += 2 {
		if err := add(s, i, 1, false); err != nil {
			b.Fatal(err)
		}
	}
	n := 0
	for b.Loop() {
		for range s.Ranges(1) {
			n++
		}
	}
	if n != b.N*pages/2 {
		b.Fatalf("%d ranges in %d rounds", n, b.N)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "ranges/s")
}
