// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// BenchmarkHandover reports how long a hand-over takes and stands still, by the size of the memory,
// all of which is in use. It stays in the pool, or arrives in the destination's own.
func BenchmarkHandover(b *testing.B) {
	for _, gib := range []int{1, 4} {
		benchmarkHandover(b, gib, "stays", func(pool string) vm.Config {
			return sized(onPool(pool, "second", "on"), gib<<10, pool, "on")
		})
		benchmarkHandover(b, gib, "arrives", func(pool string) vm.Config {
			return sizedFrom(localFrom(pool, "second", own), gib<<10, pool, own)
		})
	}
}

func benchmarkHandover(b *testing.B, gib int, how string, destination func(pool string) vm.Config) {
	b.Run(fmt.Sprintf("RAM=%dGiB/%s", gib, how), func(b *testing.B) {
		var total, downtime, sent int64
		for range b.N {
			pool := newPool(b)
			m := start(b, sized(onPool(pool, "first", "on"), gib<<10, pool, "on"))
			fillPool(b, pool, gib<<10)
			dst := startIncoming(b, destination(pool))
			figures := m.migrate(dst, byHandover())
			total += figures.TotalTime
			downtime += figures.Downtime
			sent += figures.RAM.Transferred
			dst.kill()
			m.kill()
			os.Remove(pool)
		}
		n := float64(b.N)
		b.ReportMetric(float64(total)/n, "ms-total/op")
		b.ReportMetric(float64(downtime)/n, "ms-downtime/op")
		b.ReportMetric(float64(sent)/n/1024, "KiB-sent/op")
		b.ReportMetric(0, "ns/op") // that of two QEMUs' starts
	})
}

// fillPool writes to all of the memory.
func fillPool(b *testing.B, pool string, mib int) {
	b.Helper()
	f, err := os.OpenFile(pool, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	chunk := bytes.Repeat(page(0x5a), 1<<20/pageSize)
	for range mib {
		if _, err := f.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
}
