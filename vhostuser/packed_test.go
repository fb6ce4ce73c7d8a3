// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

func TestHostilePackedRingsBreakTheQueue(t *testing.T) {
	const (
		base  = 1 << 20
		table = base + 0x1f000
		avail = vhosttest.DescAvail
		next  = vhosttest.DescNext
		write = vhosttest.DescWrite
	)
	indirect := func(n uint32, ds ...[]byte) func(r *rig) {
		return func(r *rig) {
			for i, d := range ds {
				r.g.Write(table+uint64(i)*16, d)
			}
			r.vq.PutPacked(0, table, n, 0, vhosttest.DescIndirect|avail)
		}
	}
	one := func(addr uint64, n uint32, flags uint16) func(r *rig) {
		return func(r *rig) { r.vq.PutPacked(0, addr, n, 0, flags|avail) }
	}
	for _, tt := range []struct {
		name   string
		attack func(r *rig)
		want   string
	}{
		{"a chain that never ends", func(r *rig) {
			for i := range 8 {
				r.vq.PutPacked(i, base, 1, 0, next|avail)
			}
		}, "outstanding"},
		{"a buffer outside memory", one(base+2<<16, 1, 0), "not guest memory"},
		{"a buffer that runs out of memory", one(base+2<<16-1, 2, write), "not guest memory"},
		{"a buffer near the end of the address space", one(^uint64(0)-1, 16, 0), "not guest memory"},
		{"a readable descriptor after a writable one", func(r *rig) {
			r.vq.PutPacked(0, base, 1, 0, write|next|avail)
			r.vq.PutPacked(1, base, 1, 0, avail)
		}, "after a writable"},
		{"an empty indirect table", indirect(0), "indirect table has"},
		{"an indirect table with half a descriptor", indirect(24), "indirect table has"},
		{"an endless indirect table", indirect(1 << 30), "indirect table has"},
		{"an indirect table inside an indirect table",
			indirect(16, vhosttest.EncodePacked(base, 16, 0, vhosttest.DescIndirect)), "inside"},
		{"an indirect table outside memory", one(base+2<<16, 16, vhosttest.DescIndirect),
			"not guest memory"},
		{"an indirect descriptor with a successor", one(table, 16, vhosttest.DescIndirect|next),
			"successor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 1<<wire.FeatureRingPacked)
			tt.attack(r)
			c, err := r.q.Pop()
			var ring *RingError
			if c != nil || !errors.As(err, &ring) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v, want %q", c, err, tt.want)
			}
		})
	}
}

func TestPackedDriverCannotHaveMoreOutstandingThanTheRingHolds(t *testing.T) {
	r := newRig(t, 1<<wire.FeatureRingPacked)
	var chains []*Chain
	for range 8 {
		r.request(t, 8)
		chains = append(chains, r.pop(t))
	}
	// Make slot 0 available again although the device still has its buffer.
	r.vq.PutPacked(0, 1<<20, 1, 0, vhosttest.DescUsed)
	if _, err := r.q.Pop(); err == nil || !strings.Contains(err.Error(), "outstanding") {
		t.Errorf("got %v", err)
	}
	for _, c := range chains {
		_ = r.q.Push(c, 0) // this releases the memory that the chain holds
	}
}

func TestRingFormatsHaveTheirOwnSizesAndBases(t *testing.T) {
	split, packed := dialect{}, dialect{packed: true}
	for _, tt := range []struct {
		name string
		err  error
		ok   bool
	}{
		{"a split ring of 8", split.checkSize(8, 64), true},
		{"a split ring of 12", split.checkSize(12, 64), false},
		{"a packed ring of 12", packed.checkSize(12, 64), true},
		{"a packed ring of none", packed.checkSize(0, 64), false},
		{"a packed ring that is too large", packed.checkSize(65, 64), false},
		{"a split index of 16 bits", split.checkBase(0xffff, 8), true},
		{"a split index of 17 bits", split.checkBase(0x10000, 8), false},
		{"packed indices with wrap counters", packed.checkBase(0x8007_8007, 8), true},
		{"a packed index outside", packed.checkBase(0x8007_8008, 8), false},
		{"a packed used index outside", packed.checkBase(0x8008_8007, 8), false},
	} {
		if (tt.err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, tt.err)
		}
	}
}

// A packed ring may have a size that is no power of two. It wraps several times here.
func TestPackedRingOfAnOddSize(t *testing.T) {
	r := newRig(t, 1<<wire.FeatureRingPacked|1<<wire.FeatureEventIdx)
	vq, err := vhosttest.NewQueue(r.g, 0, 7)
	check(t, err)
	defer vq.Close()
	vq.Negotiate(r.features)
	r.q.stop(false)
	r.vq.Close()
	r.vq = vq
	q := r.q
	check(t, errors.Join(q.setNum(7, 8), q.setBase(vq.Base()), q.setAddr(vq.Addr(0)), q.open()))
	q.enabled, q.running, q.halting = true, true, make(chan struct{})
	for round := range 40 {
		for range round%3 + 1 {
			r.request(t, 8)
		}
		r.serve(t)
	}
	if base := q.stop(true); base>>16 != base&0xffff {
		t.Errorf("stopped at %#x", base)
	}
}
