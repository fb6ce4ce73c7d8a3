// SPDX-License-Identifier: Apache-2.0

package vring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

const (
	ringSize = 1024 // two descriptors a request
	size     = 64   // bytes a request carries each way
	timeout  = 10 * time.Second

	eventIdx = 1 << wire.FeatureEventIdx
	packed   = 1 << wire.FeatureRingPacked
)

// BenchmarkVring runs the backends in turn within each row, so that a change of the host's
// speed affects all of them alike. A backend that waits for its turn uses no processor.
func BenchmarkVring(b *testing.B) {
	backends := []backend{
		{"libvhost-user", eventIdx, libvhostUser},
		{"go", eventIdx, goBackend},
		{"go-packed", eventIdx | packed, goBackend},
	}
	runs := make([]*run, len(backends))
	for i, d := range backends {
		runs[i] = newRun(b, d)
	}
	for _, driver := range []string{"waits", "polls"} {
		for _, depth := range []int{1, 32, 256} {
			for i, d := range backends {
				b.Run(fmt.Sprintf("driver=%s/depth=%d/backend=%s", driver, depth, d.name), func(b *testing.B) {
					if runs[i].missing != nil {
						b.Skip(runs[i].missing)
					}
					runs[i].measure(b, depth, driver == "polls")
				})
			}
		}
	}
}

// run is a driver with its ring, connected to a backend.
type run struct {
	missing error // why there is no backend
	q       *vhosttest.Queue
	backend *os.Process
	pairs   [][2]vhosttest.Buffer
	began   map[uint32]time.Time // by head
	took    []time.Duration
}

func newRun(b *testing.B, d backend) *run {
	b.Helper()
	check := func(err error) {
		if err != nil {
			b.Helper()
			b.Fatal(err)
		}
	}
	socket, process, err := d.start(b)
	if errors.Is(err, errMissing) {
		return &run{missing: err}
	}
	check(err)
	g, err := vhosttest.NewGuest(16 << 20)
	check(err)
	b.Cleanup(g.Close)
	q, err := vhosttest.NewQueue(g, 0, ringSize)
	check(err)
	b.Cleanup(q.Close)
	r := &run{q: q, backend: process}
	for range ringSize / 2 {
		in := vhosttest.Buffer{Addr: g.Alloc(size), Len: size}
		out := vhosttest.Buffer{Addr: g.Alloc(size), Len: size, Write: true}
		r.pairs = append(r.pairs, [2]vhosttest.Buffer{in, out})
	}
	f, err := vhosttest.Dial(socket)
	check(err)
	b.Cleanup(f.Close)
	check(f.Realize(vhosttest.Options{Queues: []*vhosttest.Queue{q}}))
	check(f.Start(g, 1<<wire.FeatureVersion1|1<<wire.FeatureIndirectDesc|d.features, q))
	b.Cleanup(func() { check(f.Stop(q)) })
	return r
}

// measure keeps depth requests outstanding until b.N were answered.
func (r *run) measure(b *testing.B, depth int, polls bool) {
	r.began = make(map[uint32]time.Time, depth)
	r.took = make([]time.Duration, 0, b.N)
	r.q.SetNoInterrupt(polls)
	runtime.GC()
	cpu, err := cpuTime(r.backend)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for added := 0; len(r.took) < b.N; {
		now := time.Now()
		for ; added < b.N && added-len(r.took) < depth; added++ {
			p := r.pairs[added%len(r.pairs)]
			head, err := r.q.Add(p[0], p[1])
			if err != nil {
				b.Fatal(err)
			}
			r.began[head] = now
		}
		if err := r.q.Submit(); err != nil {
			b.Fatal(err)
		}
		if err := r.collect(polls); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	end, err := cpuTime(r.backend)
	if err != nil {
		b.Fatal(err)
	}
	slices.Sort(r.took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric(float64(r.took[len(r.took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(r.took[len(r.took)*99/100].Nanoseconds()), "p99-ns")
	b.ReportMetric(float64((end-cpu).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// collect takes all answers, and waits for one.
func (r *run) collect(polls bool) error {
	var u vhosttest.Used
	var err error
	if polls {
		u, err = r.spin()
	} else {
		u, err = r.q.Wait(timeout)
	}
	if err != nil {
		return err
	}
	now := time.Now()
	for ok := true; ok; u, ok = r.q.Poll() {
		r.took = append(r.took, now.Sub(r.began[u.Head]))
		delete(r.began, u.Head)
	}
	return nil
}

func (r *run) spin() (vhosttest.Used, error) {
	for start := time.Now(); ; {
		for range 1000 {
			if u, ok := r.q.Poll(); ok {
				return u, nil
			}
		}
		if time.Since(start) > timeout {
			return vhosttest.Used{}, vhosttest.ErrTimeout
		}
	}
}
