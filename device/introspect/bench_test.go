// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// BenchmarkScan scans the memory map of 256 GiB. It consists of 256 MiB of struct
// pages that repeat, which is more than processors cache. ns/page is the time per
// struct page that was read.
func BenchmarkScan(b *testing.B) {
	const all, some = 256 << 30 >> pageShift, 4 << 20
	for name, fill := range map[string]func(s *syn.Guest){
		"anonymous": func(s *syn.Guest) {
			s.SetAll(func(n uint64) syn.Page {
				p := anAnonymous
				p.Flags |= 3 * syn.Generation
				return p
			})
		},
		"mixed": func(s *syn.Guest) {
			kinds := []syn.Page{
				{Mapping: anAddress | 1, Flags: onList | syn.SwapBacked, Refcount: 1, Word: 1},
				{Mapping: anAddress, Flags: onList, Refcount: 1}, {Word: syn.Slab}, {Word: syn.Table},
				cached(syn.Dirty | 3*syn.Generation), {Refcount: 1},
				{Word: syn.Buddy},
			}
			s.SetAll(func(n uint64) syn.Page { return kinds[n*2654435761>>7%7] })
		},
		"large": func(s *syn.Guest) {
			for n := uint64(0); n < some; n += 512 {
				s.SetLarge(n, 9, anAnonymous)
				for i := uint64(1); i < 512; i++ { // a mask is right in each repetition
					at := syn.MemMap + (n+i)*syn.PageSize + 8
					binary.LittleEndian.PutUint64(s.Low[at:], 1<<64-1<<15|1)
				}
			}
		},
		"free by pages": func(s *syn.Guest) {
			s.SetAll(func(n uint64) syn.Page { return syn.Page{Word: syn.Buddy} })
		},
		"free by 4 MiB": func(s *syn.Guest) {
			for n := uint64(0); n < some; n += 1024 {
				s.Set(n, syn.Page{Word: syn.Buddy, Private: 10})
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := syn.New(b, all, some)
			fill(s)
			// A memfd, as a guest's memory is.
			fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
			if err != nil {
				b.Fatal(err)
			}
			defer unix.Close(fd)
			if _, err := unix.Pwrite(fd, s.Low, 0); err != nil {
				b.Fatal(err)
			}
			k, err := Locate(b.Context(), s.MemoryIn(b, physmem.FD(fd)), Options{Hint: syn.Note})
			if err != nil {
				b.Fatal(err)
			}
			k.layout.Page.HeadMask = true
			for _, find := range []string{"all", "free", "order"} {
				for _, workers := range []int{1, 2} {
					name := fmt.Sprintf("find=%s/workers=%d", find, workers)
					o := ScanOptions{
						Workers: workers, FreeOnly: find == "free",
						Free: func([]Block) error { return nil },
					}
					if find == "order" {
						o.Order = func([]Run) error { return nil }
					}
					b.Run(name, func(b *testing.B) {
						var read uint64
						before := cpuTime(b)
						for b.Loop() {
							c, err := k.Scan(b.Context(), o)
							if err != nil {
								b.Fatal(err)
							}
							read += c.Read
						}
						elapsed, cpu := b.Elapsed(), cpuTime(b)-before
						b.ReportMetric(float64(elapsed.Nanoseconds())/float64(read), "ns/page")
						b.ReportMetric(float64(cpu)/float64(read), "cpu-ns/page")
					})
				}
			}
		})
	}
}

// cpuTime returns the processor time of this process in nanoseconds. Unlike
// elapsed time it does not depend on other load of the machine.
func cpuTime(b *testing.B) int64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

// BenchmarkLocate looks for the kernel in 8 GiB of memory without holes: 1 GiB
// that repeats.
func BenchmarkLocate(b *testing.B) {
	const part, parts = 1 << 30, 8
	s := syn.New(b, synFew, synFew)
	filler, err := unix.MemfdCreate("filler", unix.MFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(filler)
	for at := int64(0); at < part; at += int64(len(s.Low)) {
		if _, err := unix.Pwrite(filler, s.Low, at); err != nil {
			b.Fatal(err)
		}
	}
	// The filler is shifted by half a page, so that no note in it begins a page.
	regions := []physmem.Region{{Size: uint64(len(s.Low)), Source: bytes.NewReader(s.Low)}}
	for n := range uint64(parts) {
		regions = append(regions, physmem.Region{
			GPA: 1<<32 + n*part, Size: part - 1<<pageShift,
			Source: physmem.FD(filler), Offset: 2048,
		})
	}
	for _, tc := range []struct {
		name    string
		hint    uint64
		refused bool // the kernel is not supported, so all memory is searched
	}{{"hint", syn.Note, false}, {"no hint", 0, false}, {"refused", 0, true}} {
		b.Run(tc.name, func(b *testing.B) {
			if tc.refused {
				syn.PutNote(s.Low[syn.Note:], map[string]string{"OSRELEASE": "5.10.0"})
			}
			before := cpuTime(b)
			for b.Loop() {
				mem, err := physmem.New(regions)
				if err != nil {
					b.Fatal(err)
				}
				_, err = Locate(b.Context(), mem, Options{Hint: tc.hint})
				if (err != nil) != tc.refused {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/1e6/float64(b.N), "cpu-ms/op")
		})
	}
}
