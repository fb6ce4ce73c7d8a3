// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"
	"testing"
	"time"

	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
)

// fuzzTime bounds one input. It is far above the usual time, and only detects a
// hang.
const fuzzTime = 20 * time.Second

// within fails when f takes too long.
func within(t *testing.T, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(fuzzTime):
		t.Fatalf("not done after %v", fuzzTime)
	}
}

// FuzzMemory changes words of a guest's memory, and then locates the kernel and
// scans its memory. The input is pairs of words: an address and the new value.
func FuzzMemory(f *testing.F) {
	patch := func(pairs ...uint64) (data []byte) {
		for _, word := range pairs {
			data = binary.LittleEndian.AppendUint64(data, word)
		}
		return data
	}
	f.Add(patch(syn.MemMap+48, syn.Buddy, syn.MemMap+40, 10))
	f.Add(patch(syn.MemMap+8, syn.Vmemmap+1))
	f.Add(patch(syn.Image+syn.Root+8*511, syn.Image+1))
	f.Add(patch(syn.Image+syn.Node+syn.Zone*syn.ZoneSize+24, 1<<60))
	f.Add(patch(syn.Image+syn.Variables+16, 1))
	f.Add(patch(syn.MemMap, syn.LRU|syn.Generation, syn.MemMap+24, 16, syn.MemMap+56, 1<<63))
	f.Add(patch(syn.Image+syn.NodeTable+8, imageStart+syn.Image+syn.Node))
	f.Add(patch(syn.MemMap+3*syn.PageSize+8, syn.Vmemmap+syn.FirstPFN*syn.PageSize+8))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := syn.New(t, syn.SectionPFN, syn.SectionPFN)
		s.PutCPUList(1, 0, 3, 9)
		s.PutCPUCount(1, 2)
		for ; len(data) >= 16; data = data[16:] {
			at := binary.LittleEndian.Uint64(data) % uint64(len(s.Low)-8)
			binary.LittleEndian.PutUint64(s.Low[at:], binary.LittleEndian.Uint64(data[8:]))
		}
		within(t, func() {
			k, err := Locate(t.Context(), s.Memory(t), Options{Hint: syn.Note})
			if err != nil {
				return
			}
			var end uint64
			var free uint64
			c, err := k.Scan(t.Context(), ScanOptions{Free: func(blocks []Block) error {
				for _, b := range blocks {
					if b.PFN < end || b.PFN&(1<<b.Order-1) != 0 || b.Order >= syn.Orders ||
						!k.mem.Contains(b.PFN<<pageShift, 1<<(b.Order+pageShift)) {
						t.Errorf("block %+v behind %#x", b, end)
					}
					end, free = b.PFN+1<<b.Order, free+1<<b.Order
				}
				return nil
			}, Order: func(runs []Run) error {
				for _, r := range runs {
					if !k.mem.Contains(r.PFN<<pageShift, uint64(r.Pages)<<pageShift) {
						t.Errorf("run %+v", r)
					}
				}
				return nil
			}, CPULists: func(list []Block) error {
				for _, b := range list {
					if !k.mem.Contains(b.PFN<<pageShift, 1<<(b.Order+pageShift)) {
						t.Errorf("block %+v of a CPU", b)
					}
				}
				return nil
			}})
			if err == nil && c.Read > s.Pages+1 {
				t.Errorf("%d struct pages were read", c.Read)
			}
			_, _ = k.Content()
			_ = k.Check()
		})
	})
}
