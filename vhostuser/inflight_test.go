// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// errDied is the value that a backend panics with at the store where it has to die.
var errDied = errors.New("backend died")

// crashRig is a driver with a series of backends. Each backend dies at a given store to
// the inflight memory. Only guest memory and inflight memory pass from one to the next.
type crashRig struct {
	*rig
	t      *testing.T
	part   []byte
	table  uint64
	nextIn uint64
	want   map[uint32]wanted // by head, of requests that are not answered
	served []string          // requests in the order of popping
}

type wanted struct {
	text string
	out  vhosttest.Buffer
}

func newCrashRig(t *testing.T, features uint64) *crashRig {
	r := &crashRig{rig: newRig(t, features), t: t, want: make(map[uint32]wanted)}
	t.Cleanup(r.free)
	r.part = make([]byte, inflightSize(r.b.dialect(), 8))
	r.nextIn = r.g.Alloc(1 << 12)
	r.table = r.g.Alloc(1 << 12)
	return r
}

// free releases the resources of a backend, as the end of its process would.
func (r *crashRig) free() {
	mem := r.b.mem.Peek()
	r.b.close()
	for !mem.Freed() {
		mem.Release() // for each chain that it had popped
	}
}

// boot starts a new backend, which dies before store number life to the inflight
// memory. It says whether the backend survived its start.
func (r *crashRig) boot(life int) (alive bool) {
	r.free()
	r.connect(r.t)
	if r.vq.Packed() {
		// The frontend does not know the base of a packed ring: it sends the initial one.
		check(r.t, r.q.setNum(8, 8))
	}
	r.q.set.inflight, r.q.set.inflightLimit = area{b: r.part, step: func() {
		if life--; life < 0 {
			panic(errDied)
		}
	}}, 8
	if !r.vq.Packed() {
		r.vq.Resume()
	}
	return r.survives(func() { r.start(r.t) })
}

// survives runs f, and says whether the backend did not die in it.
func (r *crashRig) survives(f func()) (alive bool) {
	defer func() {
		if p := recover(); p != nil && p != errDied {
			panic(p)
		}
	}()
	f()
	return true
}

// add makes a request available, as the driver does.
func (r *crashRig) add(text string, indirect bool) {
	r.t.Helper()
	in := vhosttest.Buffer{Addr: r.nextIn, Len: uint32(len(text))}
	out := vhosttest.Buffer{Addr: r.nextIn + 64, Len: uint32(len(text)), Write: true}
	r.nextIn += 128
	r.g.Write(in.Addr, []byte(text))
	var head uint32
	var err error
	if indirect {
		head, err = r.vq.AddIndirect(r.table, in, out)
		r.table += 64
	} else {
		head, err = r.vq.Add(in, out)
	}
	check(r.t, err)
	if _, dup := r.want[head]; dup {
		r.t.Fatalf("head %d is given out twice", head)
	}
	r.want[head] = wanted{text, out}
}

// pop pops a chain and executes its request, without completing it.
func (r *crashRig) pop() *Chain {
	c, err := r.q.Pop()
	check(r.t, err)
	if c == nil {
		return nil
	}
	p := make([]byte, c.ReadableLen())
	_, err = c.ReadAt(p, 0)
	check(r.t, err)
	_, err = c.WriteAt(p, 0)
	check(r.t, err)
	r.served = append(r.served, string(p))
	return c
}

// collect takes all answers that the driver can see.
func (r *crashRig) collect() {
	r.t.Helper()
	for {
		u, ok := r.vq.Poll()
		if !ok {
			return
		}
		a, known := r.want[u.Head]
		if !known {
			r.t.Fatalf("request %d was answered twice", u.Head)
		}
		delete(r.want, u.Head)
		if got := string(r.g.Read(a.out.Addr, uint64(a.out.Len))); got != a.text || u.Len != a.out.Len {
			r.t.Fatalf("answer %q of %d bytes to %q", got, u.Len, a.text)
		}
	}
}

// life is what each backend does. It completes requests out of order and in batches,
// and leaves some in flight for a long time.
func (r *crashRig) life() {
	push := func(cs ...*Chain) {
		var done []Completion
		for _, c := range cs {
			if c != nil {
				done = append(done, Completion{c, c.WritableLen()})
			}
		}
		check(r.t, r.q.PushBatch(done))
		r.collect() // the driver takes answers meanwhile
	}
	a, b, c := r.pop(), r.pop(), r.pop()
	push(b)
	d := r.pop()
	push(c, d)
	e := r.pop()
	if e != nil {
		check(r.t, r.q.Unpop(e))
	}
	e = r.pop()
	push(e, a)
	for c := r.pop(); c != nil; c = r.pop() {
		push(c)
	}
}

// finish lets a backend that does not die serve the remaining requests, and checks that
// each request was answered exactly once.
func (r *crashRig) finish() {
	r.t.Helper()
	if !r.boot(1 << 30) {
		r.t.Fatal("died without a reason")
	}
	r.life()
	r.settled()
}

// settled checks that every request was answered once, and that the ring works.
func (r *crashRig) settled() {
	r.t.Helper()
	r.collect()
	if len(r.want) > 0 || r.vq.Outstanding() > 0 {
		r.t.Fatalf("%d requests were never answered", len(r.want))
	}
	if _, err := r.vq.Wait(0); !errors.Is(err, vhosttest.ErrTimeout) {
		r.t.Fatal(err)
	}
	// The ring still works.
	r.add("once more", false)
	c := r.pop()
	check(r.t, r.q.Push(c, c.WritableLen()))
	r.collect()
	if len(r.want) > 0 {
		r.t.Fatal("the ring does not work afterwards")
	}
}

// begin adds requests. Their number makes the index of some rings wrap.
func (r *crashRig) begin() {
	r.add("first", false)
	r.add("second", true)
	r.add("third", true)
	r.add("fourth", true)
}

// script runs one backend for each of lives: the number of stores after which it dies.
func (r *crashRig) script(lives ...int) (died bool) {
	for _, life := range lives {
		alive := r.boot(life) && r.survives(r.life)
		r.collect()
		died = died || !alive
	}
	return died
}

func TestBackendMayDieAtAnyPoint(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		for _, start := range []uint16{0, 5, 13} {
			for life, died := 0, true; died; life++ {
				r := newCrashRig(t, features)
				r.vq.Warp(start)
				if !r.boot(1 << 30) {
					t.Fatal("died at once")
				}
				check(t, r.survivesStop())
				r.begin()
				died = r.script(life)
				r.finish()
			}
		}
	})
}

// survivesStop stops the ring as GET_VRING_BASE does.
func (r *crashRig) survivesStop() error {
	base := r.q.stop(true)
	if base != r.vq.Base() {
		return fmt.Errorf("stopped at %#x, want %#x", base, r.vq.Base())
	}
	return nil
}

func TestBackendMayDieAgainWhileItRecovers(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		for first := 1; first < 120; first += 5 {
			for second, died := 0, true; died; second += 2 {
				r := newCrashRig(t, features)
				r.vq.Warp(6)
				r.begin()
				r.script(first)
				died = r.script(second)
				r.finish()
			}
		}
	})
}

// A backend that dies may have written entries to the used ring without publishing
// them. The driver must not see them when the next backend publishes its own entries.
func TestABatchThatWasNotPublishedIsNotSeen(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		for _, start := range []uint16{0, 5, 13} {
			for life, died := 0, true; died; life++ {
				r := newCrashRig(t, features)
				r.vq.Warp(start)
				r.begin()
				died = r.script(life)
				if !r.boot(1 << 30) {
					t.Fatal("died without a reason")
				}
				var cs []*Chain
				for c := r.pop(); c != nil; c = r.pop() {
					cs = append(cs, c)
				}
				for _, c := range slices.Backward(cs) {
					check(t, r.q.Push(c, c.WritableLen()))
					r.collect()
				}
				r.settled()
			}
		}
	})
}

func TestRequestsInFlightAreResubmittedInOrder(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		r := newCrashRig(t, features)
		r.boot(1 << 30)
		r.begin()
		var cs []*Chain
		for c := r.pop(); c != nil; c = r.pop() {
			cs = append(cs, c)
		}
		check(t, r.q.Push(cs[1], cs[1].WritableLen()))
		r.collect()
		r.add("fifth", false)
		r.served = nil
		r.boot(1 << 30)
		for r.pop() != nil {
		}
		want := []string{"first", "third", "fourth", "fifth"}
		if r.b.dialect().inOrder {
			want = []string{"first", "second", "third", "fourth", "fifth"}
		}
		if !slices.Equal(r.served, want) {
			t.Errorf("served %q, want %q", r.served, want)
		}
	})
}

func TestAStoppedRingLeavesNothingInFlight(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		r := newCrashRig(t, features)
		r.boot(1 << 30)
		r.begin()
		for r.pop() != nil {
		}
		// This backend leaves the requests in flight. The next pops only some of them.
		r.boot(1 << 30)
		r.pop()
		r.q.stop(true)
		if v := (&area{b: r.part}).load16(flightVersion); v != 0 {
			t.Errorf("inflight memory has version %d", v)
		}
		n := 0
		for _, ok := r.vq.Poll(); ok; _, ok = r.vq.Poll() {
			n++
		}
		if n != 4 {
			t.Errorf("%d requests were given back, want 4", n)
		}
	})
}

func TestInflightMemoryIsNotTrusted(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		for off := range inflightSize(dialectOf(wire.Features(features)), 8) {
			for _, v := range []byte{1, 7, 8, 0xff} {
				r := newCrashRig(t, features)
				r.boot(1 << 30)
				r.begin()
				r.pop()
				c := r.pop()
				check(t, r.q.Push(c, 0))
				r.part[off] = v
				if !r.boot(1 << 30) {
					t.Fatal("died")
				}
				for range 9 {
					c, err := r.q.Pop()
					if c == nil || err != nil {
						break
					}
					_ = r.q.Push(c, 0)
				}
				r.q.stop(true)
			}
		}
	})
}
