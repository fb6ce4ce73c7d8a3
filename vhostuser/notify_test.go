// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// request makes a buffer of n writable bytes available, and returns its head.
func (r *rig) request(t *testing.T, n uint32) uint32 {
	t.Helper()
	id, err := r.vq.Add(vhosttest.Buffer{Addr: 1<<20 + 0x8000, Len: n, Write: true})
	check(t, err)
	return id
}

func (r *rig) pop(t *testing.T) *Chain {
	t.Helper()
	c, err := r.q.Pop()
	check(t, err)
	if c == nil {
		t.Fatal("nothing is available")
	}
	return c
}

// serve pops and completes all requests. The driver takes them back.
func (r *rig) serve(t *testing.T) {
	t.Helper()
	for {
		c, err := r.q.Pop()
		check(t, err)
		if c == nil {
			break
		}
		check(t, r.q.Push(c, 0))
	}
	for r.vq.Outstanding() > 0 {
		if _, ok := r.vq.Poll(); !ok {
			t.Fatal("not used")
		}
	}
}

func TestDriverIsAskedToKickOnlyWhenNobodyLooks(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		r := newRig(t, features)
		eventIdx := wire.Features(features).Has(wire.FeatureEventIdx)
		// A fresh ring asks for a kick of the first buffer.
		r.request(t, 8)
		if !r.vq.KickWanted() {
			t.Fatal("the first kick is not wanted")
		}
		r.serve(t)
		for round := range 40 { // several times around the ring
			r.q.quiet()
			r.request(t, 8)
			if r.vq.KickWanted() {
				t.Fatalf("round %d: a kick is wanted while the device looks", round)
			}
			// The device has not seen this request when it asks for kicks.
			r.q.ring.askKicks()
			if !r.q.ring.fresh() {
				t.Fatalf("round %d: a request would be forgotten", round)
			}
			if round%2 == 0 { // a device may leave buffers for later
				r.serve(t)
			}
			r.q.ring.askKicks()
			if r.q.ring.fresh() {
				t.Fatalf("round %d: the device would be called for nothing", round)
			}
			r.request(t, 8)
			if !r.vq.KickWanted() {
				t.Fatalf("round %d: no kick is wanted by a device that sleeps", round)
			}
			r.request(t, 8)
			if got := r.vq.KickWanted(); got == eventIdx {
				t.Fatalf("round %d: second kick is wanted: %v", round, got)
			}
			r.serve(t)
		}
	})
}

func TestDriverIsInterruptedWhenItAsksForThat(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		r := newRig(t, features)
		eventIdx := wire.Features(features).Has(wire.FeatureEventIdx)
		use := func(n int) {
			var batch []Completion
			for range n {
				r.request(t, 8)
				batch = append(batch, Completion{Chain: r.pop(t)})
			}
			check(t, r.q.PushBatch(batch))
			for range n {
				if _, ok := r.vq.Poll(); !ok {
					t.Fatal("not used")
				}
			}
		}
		for round := range 40 {
			r.vq.SetNoInterrupt(true)
			use(3)
			if r.q.ring.wantsCall() {
				t.Fatalf("round %d: interrupt is wanted in spite of all", round)
			}
			r.vq.SetNoInterrupt(false)
			if eventIdx {
				r.vq.AskInterrupt()
			}
			if r.q.ring.wantsCall() {
				t.Fatalf("round %d: interrupt is wanted for nothing", round)
			}
			use(3)
			if !r.q.ring.wantsCall() {
				t.Fatalf("round %d: no interrupt is wanted", round)
			}
			use(1)
			if got := r.q.ring.wantsCall(); got == eventIdx {
				t.Fatalf("round %d: second interrupt is wanted: %v", round, got)
			}
		}
	})
}

func TestCompletionsAreHeldBackToBeInOrder(t *testing.T) {
	for _, packed := range []uint64{0, 1 << wire.FeatureRingPacked} {
		r := newRig(t, packed|1<<wire.FeatureInOrder)
		for range 5 { // several times around the ring
			var want []vhosttest.Used
			for _, n := range []uint32{8, 16, 24, 32} {
				want = append(want, vhosttest.Used{Head: r.request(t, n), Len: n})
			}
			want[1].Len = 3 // fewer bytes than the buffer has
			a, b, c, d := r.pop(t), r.pop(t), r.pop(t), r.pop(t)
			check(t, r.q.Push(d, 32))
			check(t, r.q.PushBatch([]Completion{{c, 24}, {b, 3}}))
			if u, ok := r.vq.Poll(); ok {
				t.Fatalf("used out of order: %v", u)
			}
			if r.q.ring.wantsCall() {
				t.Error("interrupt is wanted for what the driver cannot see")
			}
			check(t, r.q.Push(a, 100)) // more bytes than the buffer has
			var got []vhosttest.Used
			for u, ok := r.vq.Poll(); ok; u, ok = r.vq.Poll() {
				got = append(got, u)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("used %v, want %v", got, want)
			}
			if !r.q.ring.wantsCall() {
				t.Error("no interrupt is wanted")
			}
		}
	}
}

func TestPushBatchReportsWhatDoesNotBelong(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		r := newRig(t, features)
		r.request(t, 8)
		r.request(t, 8)
		a, b := r.pop(t), r.pop(t)
		if err := r.q.PushBatch([]Completion{{a, 0}, {a, 0}, {b, 0}}); err == nil {
			t.Error("a chain was pushed twice")
		}
		for range 2 {
			if _, ok := r.vq.Poll(); !ok {
				t.Error("a chain of the batch is lost")
			}
		}
		check(t, r.q.PushBatch(nil))
	})
}

func TestPackedRingsLogWhatTheyWrite(t *testing.T) {
	const page = vhosttest.PageSize
	for _, features := range []uint64{0, 1 << wire.FeatureEventIdx} {
		r := newRig(t, features|1<<wire.FeatureRingPacked)
		r.request(t, 8)
		r.request(t, 8)
		a, b := r.pop(t), r.pop(t)
		r.log.Harvest()
		for _, step := range []struct {
			name string
			do   func()
			want []uint64
		}{
			{"refuse kicks", func() { r.q.quiet() }, []uint64{r.vq.UsedRing / page}},
			{"ask for kicks", r.q.ring.askKicks, []uint64{r.vq.UsedRing / page}},
			{"use a batch", func() { check(t, r.q.PushBatch([]Completion{{a, 0}, {b, 0}})) },
				[]uint64{r.vq.Desc / page}},
			{"interrupt", func() { check(t, r.q.Notify()) }, nil},
		} {
			step.do()
			if got := r.log.Harvest(); !slices.Equal(got, step.want) {
				t.Errorf("%s: logged %#x, want %#x", step.name, got, step.want)
			}
		}
	}
}

func TestSplitRingsLogTheirEventFields(t *testing.T) {
	const page = vhosttest.PageSize
	for _, features := range []uint64{0, 1 << wire.FeatureEventIdx} {
		r := newRig(t, features)
		r.log.Harvest()
		r.q.quiet()
		quiet := r.log.Harvest()
		r.q.ring.askKicks()
		if got := r.log.Harvest(); !slices.Equal(got, []uint64{r.vq.UsedRing / page}) {
			t.Errorf("logged %#x", got)
		}
		if features == 0 && !slices.Equal(quiet, []uint64{r.vq.UsedRing / page}) {
			t.Errorf("logged %#x", quiet)
		}
	}
}
