// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/model/pool"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// BenchmarkArrival reports how memory arrives from a pool that is touched at random, and how the
// simulation of docs/pool.md says that it does. The simulation knows from other runs what a
// fault costs and what the background brings alone.
func BenchmarkArrival(b *testing.B) {
	const mib = 256
	for _, bound := range []int64{64 << 20, 256 << 20, 0} {
		b.Run(fmt.Sprintf("bound=%dMiB", bound>>20), func(b *testing.B) {
			var measured, simulated, faults, expected, cost, copied float64
			for range b.N {
				a := arrivalOf(b, mib, 1) // next to nothing by itself
				every, fault := a.touchCosts(b, 2000)
				a.end()
				a = arrivalOf(b, mib, 0)
				alone := time.Duration(a.dst.awaitLoaded().Time) * time.Millisecond
				a.end()

				a = arrivalOf(b, mib, 1)
				a.dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": bound})
				before := a.awaitFlow()
				began := time.Now()
				for a.touch(20); a.isArriving(b); {
					a.touch(20)
				}
				took, after := time.Since(began), a.dst.awaitLoaded()
				a.end()

				pages := int(before.Remaining / pageSize)
				r := pool.Arrive(1, pool.Guest{Pages: pages, Every: every}, pool.Path{
					Fault: fault, Bound: float64(bound), Copy: mib << 20 / alone.Seconds(),
				}, 1)[0]
				measured += took.Seconds()
				simulated += r.Local.Seconds()
				faults += float64(after.Faults - before.Faults)
				expected += float64(r.Faults)
				cost += float64(fault.Microseconds())
				copied += mib << 20 / alone.Seconds()
			}
			n := float64(b.N)
			b.ReportMetric(measured/n*1000, "ms-local/op")
			b.ReportMetric(simulated/measured, "simulated/measured")
			b.ReportMetric(faults/n, "faults/op")
			b.ReportMetric(expected/faults, "simulated-faults/faults")
			b.ReportMetric(cost/n, "µs-fault/op")
			b.ReportMetric(copied/n/1e9, "GB/s-alone")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// arriving is memory that arrives at a machine.
type arriving struct {
	pool     string
	src, dst *machine
	mib      int
	random   *rand.Rand
}

// arrivalOf begins to bring memory that is all in use, by so many bytes per second.
func arrivalOf(b *testing.B, mib int, bound int64) *arriving {
	b.Helper()
	a := &arriving{pool: newPool(b), mib: mib, random: rand.New(rand.NewPCG(1, 2))}
	a.src = start(b, sized(onPool(a.pool, "first", "on"), mib, a.pool, "on"))
	fillPool(b, a.pool, mib)
	a.dst = startIncoming(b, sizedFrom(localFrom(a.pool, "second", own), mib, a.pool, own))
	by := byHandover()
	by.Parameters = map[string]any{"max-postcopy-bandwidth": bound}
	a.src.migrate(a.dst, by)
	return a
}

// touch reads so many pages at random.
func (a *arriving) touch(n int) {
	for range n {
		// Not below the first MiB, where ROMs and devices are.
		a.dst.number("readq %#x", 1<<20+uint64(a.random.Int64N(int64(a.mib-1)<<20))&^(pageSize-1))
	}
}

// touchCosts returns how long it takes to read a page that is there, and how much longer one takes
// that is not.
func (a *arriving) touchCosts(b *testing.B, n int) (there, missing time.Duration) {
	b.Helper()
	read := func() time.Duration {
		a.random = rand.New(rand.NewPCG(1, 2))
		began := time.Now()
		for range n / 20 {
			a.touch(20)
			a.isArriving(b) // as the loop does that it is to stand for
		}
		return time.Since(began) / time.Duration(n)
	}
	first := read()
	there = read()
	return there, max(first-there, 0)
}

// awaitFlow waits until the background brings what it was told to: it looks ten times a second.
func (a *arriving) awaitFlow() (now vm.Load) {
	before := a.dst.requireLoading()
	a.dst.await("it goes on", func() bool {
		now = a.dst.requireLoading()
		return now.Remaining < before.Remaining
	})
	return now
}

func (a *arriving) isArriving(b *testing.B) bool {
	b.Helper()
	figures, err := a.dst.QueryMigrate(a.dst.ctx)
	if err != nil {
		b.Fatal(err)
	}
	return figures.Status == "postcopy-active"
}

func (a *arriving) end() {
	a.dst.kill()
	a.src.kill()
	os.Remove(a.pool)
}
