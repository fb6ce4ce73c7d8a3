// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"
	"testing"
	"time"
)

// fuzzTime bounds what a hostile guest may cost. It ends a hang, and is not
// about speed.
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
		t.Fatal("no end")
	}
}

// FuzzMemory changes words of a guest's memory, and then looks at all of it. A
// word of data is an address of 40 bits and the new word's low bits.
func FuzzMemory(f *testing.F) {
	patch := func(pairs ...uint64) (data []byte) {
		for _, word := range pairs {
			data = binary.LittleEndian.AppendUint64(data, word)
		}
		return data
	}
	f.Add(patch(synMemMap+48, synBuddy, synMemMap+40, 10))
	f.Add(patch(synMemMap+8, synVmemmap+1))
	f.Add(patch(synImage+synRoot+8*511, synImage+1))
	f.Add(patch(synImage+synNode+synZone*synZoneSize+24, 1<<60))
	f.Add(patch(synImage+synVariables+16, 1))
	f.Add(patch(synImage+synNodeTable+8, imageStart+synImage+synNode))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newSynthetic(t, synSectionPFN, synSectionPFN)
		for ; len(data) >= 16; data = data[16:] {
			at := binary.LittleEndian.Uint64(data) % uint64(len(s.low)-8)
			binary.LittleEndian.PutUint64(s.low[at:], binary.LittleEndian.Uint64(data[8:]))
		}
		within(t, func() {
			k, err := Locate(t.Context(), s.memory(t), Options{Hint: synNote})
			if err != nil {
				return
			}
			var end uint64
			var free uint64
			c, err := k.Scan(t.Context(), ScanOptions{Free: func(blocks []Block) error {
				for _, b := range blocks {
					if b.PFN < end || b.PFN&(1<<b.Order-1) != 0 || b.Order >= synOrders ||
						!k.mem.Contains(b.PFN<<pageShift, 1<<(b.Order+pageShift)) {
						t.Errorf("block %+v behind %#x", b, end)
					}
					end, free = b.PFN+1<<b.Order, free+1<<b.Order
				}
				return nil
			}})
			if err == nil && c.Read > s.pages+1 {
				t.Errorf("%d struct pages were read", c.Read)
			}
			_, _ = k.Content()
			_ = k.Check()
		})
	})
}
