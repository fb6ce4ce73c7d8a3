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
// all of which is in use.
func BenchmarkHandover(b *testing.B) {
	for _, gib := range []int{1, 4} {
		b.Run(fmt.Sprintf("RAM=%dGiB", gib), func(b *testing.B) {
			var total, downtime, sent int64
			for range b.N {
				pool := newPool(b)
				on := func(name string) vm.Config {
					return sized(onPool(pool, name, "on"), gib<<10, pool, "on")
				}
				m := start(b, on("first"))
				fillPool(b, pool, gib)
				dst := startIncoming(b, on("second"))
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
}

// fillPool writes to all of the memory.
func fillPool(b *testing.B, pool string, gib int) {
	b.Helper()
	f, err := os.OpenFile(pool, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	chunk := bytes.Repeat(page(0x5a), 1<<20/pageSize)
	for range gib << 10 {
		if _, err := f.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
}
