// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// traffic sends requests through queue i until stop is closed. The answers are written
// to different places in turn.
func (v *vm) traffic(i int, stop <-chan struct{}) {
	q := v.queues[i]
	const text = "traffic that dirties memory"
	in := vhosttest.Buffer{Addr: v.g.Alloc(uint64(len(text))), Len: uint32(len(text))}
	v.g.Write(in.Addr, []byte(text))
	// Answers begin two bytes before the end of a page, so each dirties two pages.
	const places = 32
	area := v.g.Alloc((places + 1) * vhosttest.PageSize)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		out := vhosttest.Buffer{Addr: area + uint64(n%places+1)*vhosttest.PageSize - 2, Len: in.Len,
			Write: true}
		if _, err := q.Add(in, out); err != nil {
			v.t.Error(err)
			return
		}
		if err := q.Submit(); err != nil {
			v.t.Error(err)
			return
		}
		if _, err := q.Wait(20 * time.Second); err != nil {
			v.t.Error(err)
			return
		}
	}
}

func TestMigrationFindsEveryWriteInTheLog(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		for _, tt := range []struct {
			name    string
			without wire.ProtocolFeatures
			during  func(v *vm, m *vhosttest.Migration)
		}{
			{"plainly", 0, func(v *vm, m *vhosttest.Migration) {}},
			{"without REPLY_ACK", 1 << wire.ProtocolReplyAck, func(v *vm, m *vhosttest.Migration) {}},
			{"with many rounds", 0, func(v *vm, m *vhosttest.Migration) {
				for range 50 {
					m.Round()
				}
			}},
			{"while the log is swapped", 0, func(v *vm, m *vhosttest.Migration) {
				for range 20 {
					must(v.t, m.SwapLog())
					m.Round()
				}
			}},
			{"while memory is added", 0, func(v *vm, m *vhosttest.Migration) {
				b, err := v.g.AddBlock(v.g.End()+1<<20, 1<<16)
				must(v.t, err)
				must(v.t, v.f.AddBlock(b))
				must(v.t, m.SwapLog())
				in, _ := v.request("new")
				out := vhosttest.Buffer{Addr: b.Alloc(3), Len: 3, Write: true}
				_, err = v.queues[1].Add(in, out)
				must(v.t, err)
				must(v.t, v.queues[1].Kick.Raise())
				v.answer(1, out, "new")
			}},
			{"while the memory table is sent again", 1 << wire.ProtocolConfigureMemSlots,
				func(v *vm, m *vhosttest.Migration) {
					for range 20 {
						must(v.t, v.f.SetTable(v.g))
						m.Round()
					}
				}},
			{"while a ring's memory goes and comes back", 0, func(v *vm, m *vhosttest.Migration) {
				for range 20 {
					must(v.t, v.f.RemoveBlock(v.g.Blocks[0]))
					must(v.t, v.f.AddBlock(v.g.Blocks[0]))
					m.Round()
				}
			}},
			{"while a ring is restarted", 0, func(v *vm, m *vhosttest.Migration) {
				for range 20 {
					must(v.t, v.f.Stop(v.queues[1]))
					must(v.t, v.f.StartRing(v.queues[1]))
					must(v.t, v.f.Enable(v.queues[1], true))
					m.Round()
				}
			}},
			{"again after a cancelled one", 0, nil},
		} {
			t.Run(tt.name, func(t *testing.T) {
				e := newEcho()
				v := newVM(t, serve(t, &e.Device), vhosttest.Options{Without: tt.without}, 2<<20,
					1<<20).speak(features)
				v.queues[0].Warp(0xffe0)
				v.start()
				stop := make(chan struct{})
				var wg sync.WaitGroup
				wg.Go(func() { v.traffic(0, stop) })
				if tt.during == nil {
					m, err := v.f.StartMigration(v.g, v.queues...)
					must(t, err)
					m.Round()
					must(t, m.Cancel())
					tt.during = func(*vm, *vhosttest.Migration) {}
				}
				m, err := v.f.StartMigration(v.g, v.queues...)
				must(t, err)
				tt.during(v, m)
				eventually(t, "traffic is logged", func() bool { return len(m.Round()) > 2 })
				must(t, v.f.Stop(v.queues...))
				if missing := m.Missing(); len(missing) != 0 {
					t.Errorf("pages not in the log: %#x", missing)
				}
				// At the destination, which does not log, the rings go on.
				m.Close()
				must(t, v.f.SetFeatures(v.features))
				v.start2(t)
				close(stop)
				wg.Wait()
			})
		}
	})
}

func TestOracleSeesAnUnloggedWrite(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	m, err := v.f.StartMigration(v.g, v.queues...)
	must(t, err)
	defer m.Close()
	addr := v.g.Alloc(1)
	mem := e.connection().Memory()
	segs, err := mem.Segments(nil, addr, 1)
	must(t, err)
	segs[0].Bytes[0] = 1
	mem.Release()
	if missing := m.Missing(); !slices.Equal(missing, []uint64{addr / vhosttest.PageSize}) {
		t.Errorf("missing pages %#x", missing)
	}
}

func TestLogHoldsExactlyWhatWasWritten(t *testing.T) {
	const page = vhosttest.PageSize
	for _, tt := range []struct {
		name string
		size int
		base uint16
		addr func(a *wire.VringAddr)
		want func(q *vhosttest.Queue) []uint64 // pages of the used ring
	}{
		{"in a ring of one page", 8, 0, func(*wire.VringAddr) {},
			func(q *vhosttest.Queue) []uint64 { return []uint64{q.UsedRing / page} }},
		{"with index and element on different pages", 1024, 600, func(*wire.VringAddr) {},
			func(q *vhosttest.Queue) []uint64 { return []uint64{q.UsedRing / page, q.UsedRing/page + 1} }},
		{"with an element across two pages", 1024, 511, func(*wire.VringAddr) {},
			func(q *vhosttest.Queue) []uint64 { return []uint64{q.UsedRing / page, q.UsedRing/page + 1} }},
		{"with the used ring logged elsewhere", 8, 0, func(a *wire.VringAddr) { a.Log = 7 * page },
			func(*vhosttest.Queue) []uint64 { return []uint64{7} }},
		{"with the used ring not logged", 8, 0, func(a *wire.VringAddr) { a.Flags = 0 },
			func(*vhosttest.Queue) []uint64 { return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
			q, err := vhosttest.NewQueue(v.g, 0, tt.size)
			must(t, err)
			t.Cleanup(q.Close)
			v.queues[0] = q
			q.Warp(tt.base)
			v.start()
			m, err := v.f.StartMigration(v.g, v.queues...)
			must(t, err)
			defer m.Close()
			a := q.Addr(wire.VringFLog)
			tt.addr(&a)
			must(t, v.f.Tell(wire.SetVringAddr, a.AppendTo(nil)))
			in, out := v.request("x")
			_, err = q.Add(in, out)
			must(t, err)
			must(t, q.Kick.Raise())
			v.answer(0, out, "x")
			must(t, v.f.Stop(v.queues...))
			want := append(tt.want(q), out.Addr/page)
			slices.Sort(want)
			if got := m.Round(); !slices.Equal(got, want) {
				t.Errorf("logged %#x, want %#x", got, want)
			}
		})
	}
}

func TestLogTellsOfItsChanges(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	event, err := vhosttest.NewEvent()
	must(t, err)
	defer event.Close()
	must(t, v.f.Tell(wire.SetLogFD, nil, event.FD))
	v.start()
	v.echo(0, "without a log")
	if event.Clear() {
		t.Error("told of a change without a log")
	}
	m, err := v.f.StartMigration(v.g, v.queues...)
	must(t, err)
	defer m.Close()
	v.echo(0, "with a log")
	must(t, event.Wait(10*time.Second))
	// The backend refuses a descriptor on which a write may block.
	var refused *vhosttest.Refused
	if err := v.f.Tell(wire.SetLogFD, nil, v.g.Blocks[0].FD); !errors.As(err, &refused) {
		t.Errorf("a descriptor in blocking mode: %v", err)
	}
}

func TestNothingIsLoggedAfterTheMigration(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	log, err := vhosttest.NewLog(v.g.End())
	must(t, err)
	m, err := v.f.StartMigration(v.g, v.queues...)
	must(t, err)
	kept := m.Log
	m.Log = log // Cancel closes this one instead
	must(t, m.Cancel())
	defer kept.Close()
	kept.Harvest()
	v.echo(0, "after")
	must(t, v.f.Stop(v.queues...))
	if pages := kept.Harvest(); len(pages) != 0 {
		t.Errorf("logged %#x", pages)
	}
}

// A frontend that starts a device during a migration sends the kick descriptor first,
// then the log, and then enables the ring.
func TestRingStartedDuringAMigrationWaitsForTheLog(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	// A previous backend suppressed kicks: this one clears the flag and logs the write.
	q := v.queues[0]
	v.g.Write(q.UsedRing, []byte{1, 0})
	in, out := v.request("early")
	_, err := q.Add(in, out)
	must(t, err)
	must(t, q.Kick.Raise())

	features := wire.U64(virtioFeatures | 1<<wire.FeatureLogAll | 1<<wire.FeatureProtocolFeatures)
	must(t, v.f.Tell(wire.SetFeatures, features.AppendTo(nil)))
	must(t, v.f.SetMemory(v.g))
	must(t, v.f.StartRing(q))
	must(t, v.f.Barrier())
	if v.g.Read(q.UsedRing, 1)[0] != 1 || q.UsedIdx() != 0 {
		t.Fatal("the ring was written before it was enabled")
	}
	m, err := v.f.StartMigration(v.g, q)
	must(t, err)
	defer m.Close()
	must(t, v.f.Enable(q, true))
	v.answer(0, out, "early")
	must(t, v.f.Stop(q))
	if v.g.Read(q.UsedRing, 1)[0] != 0 {
		t.Error("kicks are still suppressed")
	}
	if missing := m.Missing(); len(missing) != 0 {
		t.Errorf("pages not in the log: %#x", missing)
	}
}

func TestLogAllWithoutALogIsHarmless(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	must(t, v.f.SetFeatures(v.features))
	must(t, v.f.Tell(wire.SetFeatures,
		wire.U64(virtioFeatures|1<<wire.FeatureLogAll|1<<wire.FeatureProtocolFeatures).AppendTo(nil)))
	must(t, v.f.SetMemory(v.g))
	v.start2(t)
	v.echo(0, "no log")
}

func TestLogThatIsTooSmallOrTruncatedIsSurvived(t *testing.T) {
	t.Run("too small", func(t *testing.T) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		v.start()
		log, err := vhosttest.NewLog(0)
		must(t, err)
		defer log.Close()
		m, err := v.f.StartMigration(v.g, v.queues...)
		must(t, err)
		defer m.Close()
		must(t, v.f.SetLog(log, 8))
		v.echo(0, "beyond the log")
		if pages := log.Harvest(); len(pages) != 0 {
			t.Errorf("logged %#x", pages)
		}
	})
	// The frontend must learn that its log is not used.
	t.Run("refused at once", func(t *testing.T) {
		e := newEcho()
		path := serve(t, &e.Device)
		for _, size := range []uint64{0, 12, 1 << 20, ^uint64(7)} {
			v := newVM(t, path, vhosttest.Options{})
			v.start()
			log, err := vhosttest.NewLog(0)
			must(t, err)
			if err := v.f.SetLog(log, size); err == nil || v.f.Barrier() == nil {
				t.Errorf("after a log of %#x bytes the connection goes on, %v", size, err)
			}
			log.Close()
			v.f.Close()
		}
		v := newVM(t, path, vhosttest.Options{})
		v.start()
		v.echo(0, "the next frontend")
	})
	t.Run("truncated", func(t *testing.T) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		v.start()
		m, err := v.f.StartMigration(v.g, v.queues...)
		must(t, err)
		defer m.Close()
		must(t, m.Log.Truncate())
		in, out := v.request("x")
		_, err = v.queues[0].Add(in, out)
		must(t, err)
		must(t, v.queues[0].Kick.Raise())
		var q *vhostuser.Queue = e.connection().Queue(0)
		eventually(t, "queue is broken", func() bool { return !q.Running() })
		must(t, v.f.Barrier())
	})
}
