// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// rig is a backend without a connection. It has one ring of size 8 in guest memory.
type rig struct {
	features wire.Features
	g        *vhosttest.Guest
	vq       *vhosttest.Queue
	b        *Backend
	q        *Queue
	log      *vhosttest.Log
}

func newRig(t testing.TB, features uint64) *rig {
	t.Helper()
	r := &rig{features: wire.Features(features)}
	var err error
	// The memory is two adjacent blocks. There is none behind them.
	r.g, err = vhosttest.NewGuest(1<<16, 1<<16)
	check(t, err)
	t.Cleanup(r.g.Close)
	r.vq, err = vhosttest.NewQueue(r.g, 0, 8)
	check(t, err)
	t.Cleanup(r.vq.Close)
	r.log, err = vhosttest.NewLog(r.g.End())
	check(t, err)
	t.Cleanup(r.log.Close)
	r.vq.Negotiate(r.features)
	r.connect(t)
	t.Cleanup(func() { r.b.close() })
	r.restart(t)
	return r
}

// connect makes a backend. Its ring is not started. The backend before it, if any, is
// not closed.
func (r *rig) connect(t testing.TB) {
	t.Helper()
	s, err := NewServer(&Device{NumQueues: 1, Kick: func(*Queue) {}}, nil)
	check(t, err)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	unix.Close(fds[0])
	conn, err := wire.NewConnFD(fds[1], "unused")
	check(t, err)
	r.b = newBackend(s.dev, conn, s.lg, s.opts)
	r.b.features.Store(r.b.offered() | uint64(r.features))
	if !r.features.Has(wire.FeatureEventIdx) {
		r.b.features.Store(r.b.features.Load() &^ (1 << wire.FeatureEventIdx))
	}
	for _, blk := range r.g.Blocks {
		slot, err := guestmem.MapSlot(blk.Region(), blk.FD, false)
		check(t, err)
		table, err := r.b.mem.Peek().With(slot)
		check(t, err)
		slot.Release()
		r.b.useMemory(table)
	}
	r.b.log.SetAll(true)
	check(t, r.log.Give(r.b.log.Replace))
	r.q = r.b.queues[0]
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// restart starts the ring anew.
func (r *rig) restart(t testing.TB) {
	t.Helper()
	r.q.stop(false)
	r.vq.Reset()
	r.start(t)
}

// start starts the ring at the base that the driver knows.
func (r *rig) start(t testing.TB) {
	t.Helper()
	q := r.q
	check(t, errors.Join(q.setNum(8, 8), q.setBase(r.vq.Base()), q.setAddr(r.vq.Addr(wire.VringFLog)),
		q.open()))
	q.enabled, q.running, q.halting = true, true, make(chan struct{})
}

// rigDialects are the features that change how a ring works.
func rigDialects(t *testing.T, f func(t *testing.T, features uint64)) {
	for _, packed := range []uint64{0, 1 << wire.FeatureRingPacked} {
		for _, more := range []uint64{0, 1 << wire.FeatureEventIdx, 1<<wire.FeatureEventIdx |
			1<<wire.FeatureInOrder} {
			features := packed | more
			t.Run(fmt.Sprint(wire.Features(features)), func(t *testing.T) { f(t, features) })
		}
	}
}

func TestRequestsDoNotAllocate(t *testing.T) {
	for _, inflight := range []bool{false, true} {
		rigDialects(t, func(t *testing.T, features uint64) {
			r := newRig(t, features)
			if inflight {
				r.q.stop(false)
				r.q.setInflight(make([]byte, inflightSize(r.b.dialect(), 8)), 8)
				r.start(t)
			}
			in := vhosttest.Buffer{Addr: r.g.Alloc(8), Len: 8}
			out := vhosttest.Buffer{Addr: r.g.Alloc(8), Len: 8, Write: true}
			buf := make([]byte, 8)
			batch := make([]Completion, 3)
			request := func() {
				for i := range batch {
					c, err := r.q.Pop()
					if err != nil || c == nil {
						t.Fatal(c, err)
					}
					if _, err := c.ReadAt(buf, 0); err != nil {
						t.Fatal(err)
					}
					if _, err := c.WriteAt(buf, 0); err != nil {
						t.Fatal(err)
					}
					batch[i] = Completion{Chain: c, Written: 8}
				}
				if err := errors.Join(r.q.PushBatch(batch[1:]), r.q.Push(batch[0].Chain, 8),
					r.q.Notify()); err != nil {
					t.Fatal(err)
				}
			}
			// The driver of these tests allocates. Its allocations are not counted.
			const rounds = 100
			var before, after runtime.MemStats
			allocs := uint64(0)
			for n := range 2 * rounds {
				for range batch {
					_, err := r.vq.Add(in, out)
					check(t, err)
				}
				runtime.ReadMemStats(&before)
				request()
				runtime.ReadMemStats(&after)
				if n >= rounds { // the first rounds fill the pools
					allocs += after.Mallocs - before.Mallocs
				}
				for range batch {
					if _, ok := r.vq.Poll(); !ok {
						t.Fatal("not used")
					}
				}
			}
			// Rounded down as in testing.AllocsPerRun: other goroutines may allocate, too.
			if n := allocs / rounds; n > 0 {
				t.Errorf("%d allocations for each batch of requests", n)
			}
		})
	}
}
