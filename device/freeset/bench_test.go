// SPDX-License-Identifier: Apache-2.0

package freeset

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// benchBatch is how many records are decoded between two looks at the clock:
// about what a guest posts at once, and few enough to be made as they are
// needed, since those of 4 TiB in single pages take 8 GiB.
const benchBatch = 1 << 16

// BenchmarkDecode decodes and coalesces the records of a guest whose memory is
// all free, in blocks of one order, in the order of their addresses or
// scattered over all of it. It tells records and bytes of records per second,
// how long a whole report takes, and the memory that was taken for it in all, the set
// itself included: in MiB, and in bits for each of the guest's pages.
func BenchmarkDecode(b *testing.B) {
	for _, gib := range []uint64{8, 256, 1 << 10, 4 << 10} {
		for _, order := range []uint8{0, 1, 3, 6, 10} {
			for _, way := range []struct {
				name   string
				stride uint64
			}{{"inorder", 1}, {"scattered", 0x9e3779b1}} {
				b.Run(fmt.Sprintf("guest=%dGiB/order=%d/%s", gib, order, way.name), func(b *testing.B) {
					benchDecode(b, gib<<30, order, way.stride)
				})
			}
		}
	}
}

// benchDecode visits block i*stride, modulo the number of blocks, a power of
// two; stride is odd.
func benchDecode(b *testing.B, size uint64, order uint8, stride uint64) {
	p := make([]byte, benchBatch*protocol.RecordSize)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := New([]Range{{0, size}})
	blocks := size >> FrameShift >> order
	var decode time.Duration
	var records uint64
	for b.Loop() {
		s.Reset()
		for i := uint64(0); i < blocks; {
			n := min(benchBatch, blocks-i)
			for j := range n {
				block := (i + j) * stride & (blocks - 1)
				binary.LittleEndian.PutUint64(p[j*protocol.RecordSize:], uint64(protocol.MakeRecord(block<<order, order)))
			}
			began := time.Now()
			if err := s.AddRecords(p[:n*protocol.RecordSize], FrameShift, false); err != nil {
				b.Fatal(err)
			}
			decode += time.Since(began)
			records, i = records+n, i+n
		}
		if s.Frames() != s.Capacity() {
			b.Fatalf("%d of %d frames are free", s.Frames(), s.Capacity())
		}
		if after.TotalAlloc == 0 {
			runtime.ReadMemStats(&after) // the first report has taken what it takes
		}
	}
	taken := float64(after.TotalAlloc - before.TotalAlloc)
	b.ReportMetric(0, "ns/op") // has the making of the records in it
	b.ReportMetric(float64(records)/decode.Seconds(), "records/s")
	b.ReportMetric(float64(records*protocol.RecordSize)/decode.Seconds()/1e9, "GB/s")
	b.ReportMetric(decode.Seconds()/float64(records)*float64(blocks)*1e3, "ms/report")
	b.ReportMetric(taken/(1<<20), "MiB")
	b.ReportMetric(taken*8/float64(size>>FrameShift), "bits/page")
}

// BenchmarkRanges reads the ranges of a guest that has every other page free,
// the most that there can be.
func BenchmarkRanges(b *testing.B) {
	const pages = 1 << 21
	s := New([]Range{{0, pages << FrameShift}})
	for i := uint64(0); i < pages; i += 2 {
		if err := s.Add(i, 1, false); err != nil {
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
