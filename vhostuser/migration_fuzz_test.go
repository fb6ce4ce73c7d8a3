// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// places is how many different places on two pages answers are written to.
const places = 24

// migrator drives a device during a migration. A fuzzer's bytes select the steps.
type migrator struct {
	*vm
	m     *vhosttest.Migration
	in    vhosttest.Buffer
	area  uint64
	table uint64 // for indirect descriptors
	extra *vhosttest.Block
}

const migratorText = "answers that dirty memory"

func newMigrator(t *testing.T, warp uint16, features uint64) *migrator {
	e := newEcho()
	e.Device.Features |= 1<<wire.FeatureEventIdx | 1<<wire.FeatureInOrder | 1<<wire.FeatureRingPacked
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{}, 512<<10)
	mig := &migrator{vm: v, in: vhosttest.Buffer{Addr: v.g.Alloc(1), Len: uint32(len(migratorText))}}
	v.g.Write(mig.in.Addr, []byte(migratorText))
	mig.area = v.g.Alloc((places + 2) * page)
	mig.table = v.g.Alloc(1)
	if features&(1<<wire.FeatureRingPacked) == 0 {
		v.queues[0].Warp(warp)
	}
	must(t, v.f.Start(v.g, virtioFeatures|features, v.queues...))
	var err error
	mig.m, err = v.f.StartMigration(v.g, v.queues...)
	must(t, err)
	return mig
}

// do does one step. Requests may stay outstanding after it.
func (g *migrator) do(op, arg byte) {
	q := g.queues[0]
	out := vhosttest.Buffer{Addr: g.area + uint64(arg%places+1)*page - 2, Len: g.in.Len, Write: true}
	if g.extra != nil && arg >= 200 {
		out.Addr = g.extra.Addr + uint64(arg-200)
	}
	switch op % 10 {
	case 0, 1:
		if _, err := q.Add(g.in, out); err == nil { // an error says that the ring is full
			must(g.t, q.Kick.Raise())
		}
	case 2:
		if q.Outstanding() == 0 { // the device does not use the table any more
			_, err := q.AddIndirect(g.table, g.in, out)
			must(g.t, err)
			must(g.t, q.Kick.Raise())
		}
	case 3:
		g.settle()
	case 4:
		g.m.Round()
	case 5:
		must(g.t, g.m.SwapLog())
	case 6:
		must(g.t, g.f.Stop(q))
		must(g.t, g.f.StartRings(q))
	case 7:
		must(g.t, g.f.Enable(q, false))
		must(g.t, g.f.Enable(q, true))
	case 8:
		g.changeMemory()
	case 9:
		g.m.Round()
		must(g.t, g.m.Cancel())
		var err error
		g.m, err = g.f.StartMigration(g.g, g.queues...)
		must(g.t, err)
	}
}

// changeMemory adds a block at its first call. Later calls remove the memory of the
// ring and add it again.
func (g *migrator) changeMemory() {
	if g.extra != nil {
		must(g.t, g.f.RemoveBlock(g.g.Blocks[0]))
		must(g.t, g.f.AddBlock(g.g.Blocks[0]))
		return
	}
	b, err := g.g.AddBlock(g.g.End()+64*page, 4*page)
	must(g.t, err)
	must(g.t, g.f.AddBlock(b))
	must(g.t, g.m.SwapLog())
	g.extra = b
}

// settle waits for all answers.
func (g *migrator) settle() {
	for g.queues[0].Outstanding() > 0 {
		_, err := g.queues[0].Wait(20 * time.Second)
		must(g.t, err)
	}
}

// FuzzMigration drives a device through a live migration. The steps are requests, reads
// of the log, new logs, changes of memory, stops and cancelled attempts. At the end each
// page that has changed must have been in a log.
func FuzzMigration(f *testing.F) {
	f.Add(uint16(0), byte(0), []byte{0, 1, 1, 2, 4, 0, 0, 3, 4, 0})
	f.Add(uint16(0xfffe), byte(1), []byte{0, 1, 0, 2, 5, 0, 0, 3, 3, 0, 2, 9, 4, 0})
	f.Add(uint16(0xffff), byte(2), []byte{0, 1, 6, 0, 0, 2, 7, 0, 0, 3, 6, 0, 3, 0, 4, 0})
	f.Add(uint16(7), byte(4), []byte{8, 0, 0, 201, 0, 255, 8, 0, 0, 210, 3, 0, 5, 0, 0, 3})
	f.Add(uint16(7), byte(7), []byte{0, 1, 9, 0, 0, 2, 9, 0, 0, 2, 2, 7, 6, 0, 9, 0, 0, 9})
	f.Fuzz(func(t *testing.T, warp uint16, dialect byte, ops []byte) {
		var features uint64
		for i, bit := range []int{wire.FeatureEventIdx, wire.FeatureInOrder, wire.FeatureRingPacked} {
			if dialect>>i&1 != 0 {
				features |= 1 << bit
			}
		}
		g := newMigrator(t, warp, features)
		for pair := range slices.Chunk(ops[:min(len(ops), 80)&^1], 2) {
			g.do(pair[0], pair[1])
		}
		g.settle()
		must(t, g.f.Stop(g.queues...))
		if missing := g.m.Missing(); len(missing) != 0 {
			t.Errorf("pages not in the log: %#x", missing)
		}
		g.m.Close()
	})
}
