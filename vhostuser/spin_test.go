// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestUnsuccessfulSpinsBecomeRare(t *testing.T) {
	var s spinner
	// next returns how many Kicks are followed by sleep before a spin.
	next := func() (n int) {
		for !s.begin() {
			n++
		}
		return n
	}
	var rests []int
	for range 11 {
		rests = append(rests, next())
		s.end(false)
	}
	if want := []int{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 256}; !slices.Equal(rests, want) {
		t.Errorf("rests of %v, want %v", rests, want)
	}
	if n := next(); n != maxRest {
		t.Errorf("rest of %d", n)
	}
	s.end(true)
	if n := next(); n != 0 {
		t.Errorf("rest of %d after a spin that found something", n)
	}
	s.end(false)
	if n := next(); n != 1 {
		t.Errorf("rest of %d after the first spin in vain", n)
	}
}

func TestSpinsAreLongerAfterManyChainsAndBounded(t *testing.T) {
	q := &Queue{}
	for _, tt := range []struct {
		set, want time.Duration
		n         int64
	}{
		{0, 50*time.Microsecond + 250*time.Nanosecond, 1},
		{0, 114 * time.Microsecond, 256},
		{0, 200 * time.Microsecond, 1024},
		{0, 200 * time.Microsecond, math.MaxInt64},
		{time.Microsecond, time.Microsecond, 256},
		{-1, -1, 256},
	} {
		q.life.dev = &Device{SpinTime: tt.set}
		if got := q.spinTime(tt.n); got != tt.want {
			t.Errorf("SpinTime %v, %d chains: %v, want %v", tt.set, tt.n, got, tt.want)
		}
	}
}

func TestWorkerSpinsOnlyAfterKicksThatPopped(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		r := newRig(t, features)
		r.q.life.dev = &Device{SpinTime: 1} // so short that the spin looks once
		w := &worker{quit: make(chan struct{})}
		popped := r.q.quiet()
		if r.q.spin(w, popped) || w.spins.vain != 0 {
			t.Error("span after a Kick that popped nothing")
		}
		r.request(t, 8)
		check(t, r.q.Push(r.pop(t), 0))
		if r.q.spin(w, popped) || w.spins.vain != 1 {
			t.Error("did not spin after a Kick that popped")
		}
		r.request(t, 8)
		if !r.q.spin(w, popped) {
			t.Error("what came meanwhile was not seen")
		}
		if more, n := r.q.look(popped + 2); more || n != -1 {
			t.Errorf("after a chain was given back: %t, %d", more, n)
		}
		w.spins = spinner{}
		if r.q.spin(w, popped+2) || w.spins.vain != 0 {
			t.Error("span after a Kick that gave back more than it popped")
		}
	})
}
