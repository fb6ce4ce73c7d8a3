// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

func TestRingsWrapTheirIndices(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
		v.queues[0].Warp(0xfffa)
		v.start()
		for range 20 {
			v.echo(0, "around")
		}
		_, err := v.f.StopRing(v.queues[0])
		must(t, err)
		v.checkDrained(0, 14)
	})
}

func TestQueueStartsAtTheBaseOfTheFrontend(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		e := newEcho()
		begun := make(chan uint32, 1)
		e.Device.QueueStarted = func(q *vhostuser.Queue) {
			if q.Index() == 0 {
				begun <- q.Base()
			}
		}
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
		v.queues[0].Warp(7)
		v.start()
		if got, want := <-begun, v.queues[0].Base(); got != want {
			t.Errorf("base %#x, want %#x", got, want)
		}
		v.echo(0, "one")
		must(t, v.f.Stop(v.queues...))
		must(t, v.f.StartRings(v.queues...))
		if got, want := <-begun, v.queues[0].Base(); got != want || uint16(got) == 7 {
			t.Errorf("base %#x after a chain, want %#x", got, want)
		}
	})
}

func TestChainsOfEveryShape(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		const text = "a text that is cut into pieces"
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}, 1<<20, 1<<16).speak(features)
		v.start()
		q := v.queues[0]
		// pieces cuts n bytes at addr into buffers of the given sizes.
		pieces := func(addr uint64, write bool, sizes ...uint32) (bufs []vhosttest.Buffer) {
			for _, n := range sizes {
				bufs = append(bufs, vhosttest.Buffer{Addr: addr, Len: n, Write: write})
				addr += uint64(n)
			}
			return bufs
		}
		border := v.g.Blocks[1].Addr - 10
		for _, tt := range []struct {
			name     string
			in, out  []vhosttest.Buffer
			outAddr  uint64
			table    uint64
			wantUsed uint32
		}{
			{"several descriptors", pieces(v.g.Alloc(64), false, 10, 1, 19),
				pieces(v.g.Alloc(64), true, 29, 1), 0, 0, 30},
			{"empty descriptors", pieces(v.g.Alloc(64), false, 0, 30, 0), pieces(v.g.Alloc(64), true, 0, 30),
				0, 0, 30},
			{"an indirect table", pieces(v.g.Alloc(64), false, 10, 10, 10),
				pieces(v.g.Alloc(64), true, 15, 15), 0, v.g.Alloc(4096), 30},
			{"an indirect table longer than the ring",
				pieces(v.g.Alloc(64), false, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3), pieces(v.g.Alloc(64), true, 30), 0,
				v.g.Alloc(4096), 30},
			{"an indirect table across two regions", pieces(v.g.Alloc(64), false, 30),
				pieces(v.g.Alloc(64), true, 30), 0, border, 30},
			{"a buffer across two regions", pieces(v.g.Alloc(64), false, 30), pieces(border, true, 30), 0, 0,
				30},
			{"a writable part that is too short", pieces(v.g.Alloc(64), false, 30),
				pieces(v.g.Alloc(64), true, 5), 0, 0, 5},
			{"no writable part", pieces(v.g.Alloc(64), false, 30), nil, 0, 0, 0},
			{"no readable part", nil, pieces(v.g.Alloc(64), true, 30), 0, 0, 0},
		} {
			t.Run(tt.name, func(t *testing.T) {
				if len(tt.in) > 0 {
					v.g.Write(tt.in[0].Addr, []byte(text))
				}
				bufs := append(append([]vhosttest.Buffer(nil), tt.in...), tt.out...)
				var err error
				if tt.table != 0 {
					_, err = q.AddIndirect(tt.table, bufs...)
				} else {
					_, err = q.Add(bufs...)
				}
				must(t, err)
				must(t, q.Kick.Raise())
				u, err := q.Wait(10 * time.Second)
				must(t, err)
				if u.Len != tt.wantUsed {
					t.Fatalf("used length %d, want %d", u.Len, tt.wantUsed)
				}
				if u.Len > 0 {
					if got := v.g.Read(tt.out[0].Addr, uint64(u.Len)); string(got) != text[:u.Len] {
						t.Errorf("got %q", got)
					}
				}
			})
		}
	})
}

func TestHostileRingsBreakTheQueueAndNothingElse(t *testing.T) {
	const end = 1<<20 + 2<<20 // end of guest memory
	put := func(descs ...[]byte) func(v *vm, q *vhosttest.Queue) {
		return func(v *vm, q *vhosttest.Queue) {
			for i, d := range descs {
				v.g.Write(q.Desc+uint64(i)*16, d)
			}
			q.PutAvail(0)
		}
	}
	d := vhosttest.EncodeDesc
	const next, write, indirect = vhosttest.DescNext, vhosttest.DescWrite, vhosttest.DescIndirect
	// table puts descriptors into an indirect table of n bytes.
	table := func(n uint32, descs ...[]byte) func(v *vm, q *vhosttest.Queue) {
		return func(v *vm, q *vhosttest.Queue) {
			addr := v.g.Alloc(1 << 15)
			for i, d := range descs {
				v.g.Write(addr+uint64(i)*16, d)
			}
			q.SetDesc(0, addr, n, indirect, 0)
			q.PutAvail(0)
		}
	}
	for _, tt := range []struct {
		name   string
		attack func(v *vm, q *vhosttest.Queue)
		want   string
	}{
		{"a descriptor that follows itself", put(d(1<<20, 1, next, 0)), "loop"},
		{"a loop of three", put(d(1<<20, 0, next, 1), d(1<<20, 0, next, 2), d(1<<20, 0, next, 0)),
			"loop"},
		{"a successor outside the table", put(d(1<<20, 1, next, 8)), "outside a table"},
		{"a head outside the table", func(_ *vm, q *vhosttest.Queue) { q.PutAvail(8) },
			"outside a table"},
		{"an address outside memory", put(d(end, 1, 0, 0)), "not guest memory"},
		{"a buffer that runs out of memory", put(d(end-1, 2, 0, 0)), "not guest memory"},
		{"an address near the end of the address space", put(d(^uint64(0)-1, 16, 0, 0)),
			"not guest memory"},
		{"a length of 4 GiB", put(d(1<<20, ^uint32(0), write, 0)), "not guest memory"},
		{"a readable descriptor after a writable one", put(d(1<<20, 1, write|next, 1), d(1<<20, 1, 0, 0)),
			"after a writable"},
		{"an available index that jumps", func(_ *vm, q *vhosttest.Queue) { q.SetAvailIdx(9) }, "ahead"},
		{"an available index that goes back", func(_ *vm, q *vhosttest.Queue) { q.SetAvailIdx(0xffff) },
			"ahead"},
		{"an empty indirect table", table(0), "indirect table has"},
		{"an indirect table with half a descriptor", table(24), "indirect table has"},
		{"an endless indirect table", table(1 << 30), "indirect table has"},
		{"an indirect table with a loop", table(32, d(1<<20, 1, next, 1), d(1<<20, 1, next, 0)), "loop"},
		{"an indirect table whose chain leaves it", table(16, d(1<<20, 1, next, 1)), "outside a table"},
		{"an indirect table inside an indirect table", table(16, d(1<<20, 16, indirect, 0)), "inside"},
		{"an indirect table outside memory", put(d(end, 16, indirect, 0)), "not guest memory"},
		{"an indirect descriptor with a successor", put(d(1<<20, 16, indirect|next, 1)), "successor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			errs := make(chan error, 1)
			var honest atomic.Bool
			e.Device.Kick = func(q *vhostuser.Queue) {
				if q.Index() == 1 || honest.Load() {
					e.kick(q)
					return
				}
				if _, err := q.Pop(); err != nil {
					errs <- err
				}
			}
			v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
			v.start()
			q := v.queues[0]
			broken, err := vhosttest.NewEvent()
			must(t, err)
			defer broken.Close()
			must(t, v.f.SetErr(q, broken))
			tt.attack(v, q)
			must(t, q.Kick.Raise())
			select {
			case err := <-errs:
				var ring *vhostuser.RingError
				if !errors.As(err, &ring) || ring.Queue != 0 || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("Pop found nothing wrong")
			}
			must(t, broken.Wait(10*time.Second))
			b := e.connection().Queue(0)
			if b.Running() {
				t.Error("the queue still runs")
			}
			if err := b.Notify(); err == nil {
				t.Error("Notify found nothing wrong")
			}
			v.echo(1, "the other queue goes on")

			// After a reset of the driver the queue works again.
			must(t, v.f.Stop(q))
			q.Reset()
			honest.Store(true)
			must(t, v.f.StartRing(q))
			must(t, v.f.Enable(q, true))
			v.echo(0, "works again")
		})
	}
}

func TestDriverCannotHaveMoreBuffersOutstandingThanTheRingHolds(t *testing.T) {
	e := newEcho()
	e.hold = true
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	q := v.queues[0]
	for range 9 { // the ring has 8, so one comes back unused
		q.SetDesc(0, 1<<20, 1, vhosttest.DescWrite, 0)
		q.PutAvail(0)
		must(t, q.Kick.Raise())
		n := q.AvailIdx()
		eventually(t, "taken or broken", func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return len(e.held) == int(n) || !e.backend.Queue(0).Running()
		})
	}
	_, err := e.connection().Queue(0).Pop()
	if err == nil || !strings.Contains(err.Error(), "outstanding") {
		t.Errorf("got %v", err)
	}
	for _, c := range e.takeHeld() {
		if err := e.connection().Queue(0).Push(c, 0); err == nil {
			t.Error("push to a broken queue succeeded")
		}
	}
}

func TestInterruptsAreSuppressedOnRequest(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
		v.start()
		q := v.queues[0]
		in, out := v.request("quiet")
		q.SetNoInterrupt(true) // before the device looks for the first time
		q.Call.Clear()
		_, err := q.Add(in, out)
		must(t, err)
		must(t, q.Kick.Raise())
		eventually(t, "used", func() bool { return q.UsedIdx() == 1 })
		must(t, v.f.Barrier())
		if _, err := v.f.StopRing(q); err != nil {
			t.Fatal(err)
		}
		if q.Call.Clear() {
			t.Error("the driver was interrupted")
		}
	})
}
