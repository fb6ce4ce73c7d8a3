// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// modules adds memory modules behind the guest's memory, and returns them.
func (v *vm) modules(n int, size uint64) (blocks []*vhosttest.Block) {
	v.t.Helper()
	for range n {
		b, err := v.g.AddBlock((v.g.End()+size-1)&^(size-1), size)
		must(v.t, err)
		blocks = append(blocks, b)
	}
	return blocks
}

// BenchmarkMemorySlots adds the memory modules of a large guest one by one while the
// rings run, as QEMU does by ADD_MEM_REG, and removes them again. It reports the average
// time of a change, that of the last 16 modules, and the bytes that a change allocates.
func BenchmarkMemorySlots(b *testing.B) {
	for _, tt := range []struct {
		n    int
		size uint64
	}{{32, 8 << 30}, {256, 8 << 30}, {506, 4 << 30}} {
		b.Run(fmt.Sprintf("modules=%dx%dGiB", tt.n, tt.size>>30), func(b *testing.B) {
			e := newEcho()
			e.MemoryChanged = nil
			v := newVM(b, serve(b, &e.Device), vhosttest.Options{})
			v.start()
			blocks := v.modules(tt.n, tt.size)
			var all, last time.Duration
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				began := time.Now()
				for i, blk := range blocks {
					if i == len(blocks)-16 {
						last -= time.Since(began)
					}
					must(b, v.f.AddBlock(blk))
				}
				last += time.Since(began)
				for _, blk := range blocks {
					must(b, v.f.RemoveBlock(blk))
				}
				all += time.Since(began)
			}
			runtime.ReadMemStats(&after)
			changes := float64(b.N * len(blocks) * 2)
			b.ReportMetric(0, "ns/op") // has twice as many changes as modules
			b.ReportMetric(float64(all.Microseconds())/changes, "us/change")
			b.ReportMetric(float64(last.Microseconds())/float64(16*b.N), "us/last-added")
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/changes, "B/change")
		})
	}
}

// A change of the memory table allocates only two lists of pointers and one lease for
// each queue, whatever the size of the guest.
func TestMemoryChangesTakeLittleMemory(t *testing.T) {
	const bound = 32 << 10 // it includes what the frontend and the logger allocate
	e := newEcho()
	e.MemoryChanged = nil
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	blocks := v.modules(507, 4<<30)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, b := range blocks {
		must(t, v.f.AddBlock(b))
	}
	v.echo(0, "in the midst of 509 slots")
	for _, b := range blocks {
		must(t, v.f.RemoveBlock(b))
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / uint64(2*len(blocks)); n > bound {
		t.Errorf("a change takes %d bytes, more than %d", n, bound)
	} else {
		t.Logf("a change takes %d bytes", n)
	}
	v.echo(0, "and afterwards")
}
