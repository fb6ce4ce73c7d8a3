// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A guest of 8 GiB, 7 of which it has used and freed, goes on from a file that is not in the
// host's page cache: all of its memory first, or as it is needed; with what is free in the file,
// and without.
//
//	go test -run '^$' -bench Restore -benchtime 3x -timeout 30m ./tests/e2e
func BenchmarkRestore(b *testing.B) {
	m := boot(b, setup{memoryMiB: 8 << 10, timeout: 25 * time.Minute})
	if _, err := m.vm.Fill(m.ctx, 7<<10); err != nil {
		b.Fatal(err)
	}
	if err := m.vm.SetDevice(m.ctx, "hints", false); err != nil {
		b.Fatal(err)
	}
	whole, _ := m.writeSnapshot()
	if err := m.vm.Execute(m.ctx, "cont", nil, nil); err != nil {
		b.Fatal(err)
	}
	if err := m.vm.SetDevice(m.ctx, "hints", true); err != nil {
		b.Fatal(err)
	}
	m.awaitDriver()
	withHints, _ := m.snapshot()
	for _, tc := range []struct {
		name, file   string
		capabilities []string
	}{
		{"all at once", whole, []string{"mapped-ram"}},
		{"all at once, with hints", withHints, []string{"mapped-ram"}},
		{"as needed", whole, []string{"mapped-ram", "postcopy-ram"}},
		{"as needed, with hints", withHints, []string{"mapped-ram", "postcopy-ram"}},
	} {
		b.Run(tc.name, func(b *testing.B) {
			var until, all []float64
			for b.Loop() {
				evict(b, tc.file)
				v, backend, took := m.load(tc.file, tc.capabilities...)
				until, all = append(until, took.Seconds()), append(all, took.Seconds())
				if len(tc.capabilities) > 1 {
					all[len(all)-1] = float64(m.awaitLoad(v).Time) / 1000
				}
				v.Close()
				backend.Close()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(until), "s-until-it-runs")
			b.ReportMetric(median(all), "s-until-all-is-there")
			b.ReportMetric(float64(spaceOf(b, tc.file)>>20), "MiB-in-the-file")
		})
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// evict takes a file out of the host's page cache.
func evict(b *testing.B, file string) {
	b.Helper()
	f, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
}

// spaceOf returns the bytes that a file takes.
func spaceOf(b *testing.B, file string) int64 {
	b.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(file, &st); err != nil {
		b.Fatal(err)
	}
	return st.Blocks * 512
}
