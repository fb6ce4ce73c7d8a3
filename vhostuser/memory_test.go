// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

func TestMemoryTranslatesGuestAddresses(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{}, 1<<16, 1<<16)
	far, err := v.g.AddBlock(4<<30, 1<<16)
	must(t, err)
	must(t, v.f.SetMemory(v.g))
	m := e.connection().Memory()
	defer m.Release()
	const base = 1 << 20
	want := []vhostuser.Region{{Addr: base, Size: 1 << 16}, {Addr: base + 1<<16, Size: 1 << 16},
		{Addr: 4 << 30, Size: 1 << 16}}
	if got := m.Regions(); !slices.Equal(got, want) {
		t.Errorf("regions %v", got)
	}
	for _, tt := range []struct {
		name    string
		addr, n uint64
		lens    []int // nil: refused
	}{
		{"nothing", 0, 0, []int{}},
		{"the first byte", base, 1, []int{1}},
		{"a whole region", 4 << 30, 1 << 16, []int{1 << 16}},
		{"two regions", base, 2 << 16, []int{1 << 16, 1 << 16}},
		{"a border", base + 1<<16 - 3, 8, []int{3, 5}},
		{"before the first region", base - 1, 1, nil},
		{"before and in the first region", base - 1, 2, nil},
		{"in and after a region", base + 2<<16 - 1, 2, nil},
		{"between regions", 2 << 30, 1, nil},
		{"after the last region", 4<<30 + 1<<16, 1, nil},
		{"everything", 0, ^uint64(0), nil},
	} {
		segs, err := m.Segments(nil, tt.addr, tt.n)
		if (err == nil) != (tt.lens != nil) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for i, s := range segs[:len(tt.lens)] {
			if len(s.Bytes) != tt.lens[i] {
				t.Errorf("%s: segment %d has %d bytes", tt.name, i, len(s.Bytes))
			}
		}
	}
	v.g.Write(base+1<<16-2, []byte("over the border"))
	p := make([]byte, 15)
	if n, err := m.ReadAt(p, base+1<<16-2); err != nil || string(p[:n]) != "over the border" {
		t.Errorf("read %q, %v", p[:n], err)
	}
	if _, err := m.ReadAt(p, 0); err == nil {
		t.Error("read outside memory")
	}
	must(t, far.Truncate())
	var fault *vhostuser.MemoryFault
	if _, err := m.ReadAt(p, 4<<30); !errors.As(err, &fault) {
		t.Errorf("read of truncated memory: %v", err)
	}
}

func TestSnapshotOutlivesTheTable(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	must(t, v.f.SetMemory(v.g))
	m := e.connection().Memory()
	m.Retain()
	m.Release()
	addr := v.g.Blocks[1].Addr
	v.g.Write(addr, []byte("kept"))
	must(t, v.f.RemoveBlock(v.g.Blocks[1]))
	v.f.Close()
	eventually(t, "disconnected", func() bool { return slices.Contains(e.recorded(), "disconnected") })
	p := make([]byte, 4)
	if _, err := m.ReadAt(p, int64(addr)); err != nil || string(p) != "kept" {
		t.Errorf("read %q, %v", p, err)
	}
	m.Release()
}

func TestMemorySlotsUpToTheMaximum(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{}, 1<<20)
	n, err := v.f.AskU64(wire.GetMaxMemSlots)
	must(t, err)
	if n != 509 {
		t.Fatalf("%d slots", n)
	}
	must(t, v.f.SetFeatures(v.features))
	must(t, v.f.SetMemory(v.g))
	var blocks []*vhosttest.Block
	for range n - 1 {
		b, err := v.g.AddBlock(v.g.End()+vhosttest.PageSize, vhosttest.PageSize)
		must(t, err)
		must(t, v.f.AddBlock(b))
		blocks = append(blocks, b)
	}
	m := e.connection().Memory()
	if len(m.Regions()) != int(n) {
		t.Errorf("%d regions", len(m.Regions()))
	}
	m.Release()
	one, err := v.g.AddBlock(v.g.End(), vhosttest.PageSize)
	must(t, err)
	var refused *vhosttest.Refused
	if err := v.f.AddBlock(one); !errors.As(err, &refused) {
		t.Errorf("one slot too many: %v", err)
	}
	// Old frontends also send the descriptor when they remove a slot.
	must(t, v.f.Tell(wire.RemMemReg, wire.SingleMemRegion{MemRegion: blocks[7].Region()}.AppendTo(nil),
		blocks[7].FD))
	must(t, v.f.AddBlock(one))
	v.start2(t)
	v.echo(0, "with all slots")
}

func TestCompletionsWaitWhileTheRingsMemoryIsAway(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	chains, outs := v.hold(e, 3)
	q := e.connection().Queue(0)
	ring := v.g.Blocks[0]
	must(t, v.f.RemoveBlock(ring))
	if c, err := q.Pop(); c != nil || err != nil {
		t.Errorf("Pop without memory: %v, %v", c, err)
	}
	must(t, echoChain(q, chains[1])) // it also interrupts the driver
	must(t, echoChain(q, chains[0]))
	if used := v.queues[0].UsedIdx(); used != 0 {
		t.Fatalf("used index %d while the ring is not ours", used)
	}
	must(t, v.f.AddBlock(ring))
	for _, i := range []int{1, 0} {
		v.answer(0, outs[i], string(rune('a'+i)))
	}
	must(t, echoChain(q, chains[2]))
	v.answer(0, outs[2], "c")

	// A ring that is stopped without memory gives its chains back.
	chains, _ = v.hold(e, 2)
	must(t, v.f.RemoveBlock(ring))
	must(t, q.Push(chains[0], 0))
	base, err := v.f.StopRing(v.queues[0])
	must(t, err)
	if base != 3 {
		t.Errorf("base %d, want 3", base)
	}
	if err := q.Push(chains[1], 0); !errors.Is(err, vhostuser.ErrQueueStopped) {
		t.Errorf("push: %v", err)
	}
}

func TestDriverIsInterruptedAfterThePushedRingWasUnmapped(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	chains, _ := v.hold(e, 1)
	q := e.connection().Queue(0)
	must(t, q.Push(chains[0], 0))
	v.queues[0].Call.Clear()
	must(t, v.f.RemoveBlock(v.g.Blocks[0]))
	must(t, q.Notify())
	must(t, v.f.AddBlock(v.g.Blocks[0]))
	must(t, v.queues[0].Call.Wait(10*time.Second))
}

func TestRingsMustBeAlignedAndInMemory(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	must(t, v.f.SetMemory(v.g))
	must(t, v.f.Tell(wire.SetVringNum, wire.VringState{Num: 8}.AppendTo(nil)))
	end := v.g.User(v.g.Blocks[1].Addr) + v.g.Blocks[1].Size()
	for _, tt := range []struct {
		name   string
		change func(a *wire.VringAddr)
		ok     bool
	}{
		{"as a driver allocates it", func(*wire.VringAddr) {}, true},
		{"an available ring on an even address", func(a *wire.VringAddr) { a.Avail += 2 }, true},
		{"an available ring on an odd address", func(a *wire.VringAddr) { a.Avail++ }, false},
		{"a used ring on two bytes", func(a *wire.VringAddr) { a.Used += 2 }, false},
		{"a table on eight bytes", func(a *wire.VringAddr) { a.Desc += 8 }, false},
		{"a table that ends outside", func(a *wire.VringAddr) { a.Desc = end - 112 }, false},
		{"an available ring that ends outside", func(a *wire.VringAddr) { a.Avail = end - 20 }, false},
		{"a used ring that ends outside", func(a *wire.VringAddr) { a.Used = end - 68 }, false},
	} {
		a := v.queues[0].Addr(0)
		tt.change(&a)
		if err := v.f.Tell(wire.SetVringAddr, a.AppendTo(nil)); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestFeaturesReachTheDevice(t *testing.T) {
	e := newEcho()
	e.Device.Features = 1 | 1<<50
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	if want := wire.Features(1 | 1<<50 | virtioFeatures | 1<<wire.FeatureEventIdx |
		1<<wire.FeatureLogAll | 1<<wire.FeatureProtocolFeatures); v.f.Offered != want {
		t.Errorf("offered %v, want %v", v.f.Offered, want)
	}
	must(t, v.f.SetFeatures(1<<50|virtioFeatures))
	if got := e.connection().Features(); got != 1<<50|virtioFeatures {
		t.Errorf("negotiated %#x", got)
	}
}

func TestNotificationsSurviveABadFrontend(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	b := e.connection()
	next := func() *wire.Message {
		t.Helper()
		m, err := v.f.Channel.Next(10 * time.Second)
		must(t, err)
		return m
	}
	// Several changes without an acknowledgement cause one more message at most.
	b.ConfigChanged()
	first := next()
	for range 5 {
		b.ConfigChanged()
	}
	must(t, v.f.Channel.Ack(first, 1)) // the frontend refuses; this is logged
	must(t, v.f.Channel.Ack(next(), 0))
	if m, err := v.f.Channel.Next(50 * time.Millisecond); err == nil {
		t.Errorf("another notification: %v", m.Header)
	}
	// A frontend may replace the channel.
	must(t, v.f.OpenChannel())
	b.ConfigChanged()
	must(t, v.f.Channel.Ack(next(), 0))
	// A change after the channel was closed has no effect on the connection.
	v.f.Channel.Close()
	b.ConfigChanged()
	must(t, v.f.Barrier())
}
