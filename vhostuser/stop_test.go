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

func TestKicksAreNotLost(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		for _, tt := range []struct {
			name string
			when func(v *vm, q *vhosttest.Queue, kick func())
		}{
			{"between start and enable", func(v *vm, q *vhosttest.Queue, kick func()) {
				must(v.t, v.f.StartRing(q))
				kick()
				must(v.t, v.f.Enable(q, true))
			}},
			{"before start", func(v *vm, q *vhosttest.Queue, kick func()) {
				kick()
				must(v.t, v.f.StartRing(q))
				must(v.t, v.f.Enable(q, true))
			}},
			{"before start, and eaten by somebody else", func(v *vm, q *vhosttest.Queue, kick func()) {
				kick()
				q.Kick.Clear()
				must(v.t, v.f.StartRing(q))
				must(v.t, v.f.Enable(q, true))
			}},
			{"when enabled before it is started", func(v *vm, q *vhosttest.Queue, kick func()) {
				must(v.t, v.f.Enable(q, true))
				kick()
				must(v.t, v.f.StartRing(q))
			}},
			{"while it is disabled for a moment", func(v *vm, q *vhosttest.Queue, kick func()) {
				must(v.t, v.f.StartRing(q))
				must(v.t, v.f.Enable(q, true))
				must(v.t, v.f.Enable(q, false))
				kick()
				must(v.t, v.f.Enable(q, true))
			}},
			{"while it is stopped for a moment", func(v *vm, q *vhosttest.Queue, kick func()) {
				must(v.t, v.f.StartRing(q))
				must(v.t, v.f.Enable(q, true))
				_, err := v.f.StopRing(q)
				must(v.t, err)
				kick()
				must(v.t, v.f.StartRing(q))
			}},
			{"when the kick descriptor is replaced", func(v *vm, q *vhosttest.Queue, kick func()) {
				must(v.t, v.f.StartRing(q))
				must(v.t, v.f.Enable(q, true))
				kick()
				other, err := vhosttest.NewEvent()
				must(v.t, err)
				v.t.Cleanup(other.Close)
				must(v.t, v.f.Tell(wire.SetVringKick, wire.VringFD{Index: 1}.AppendTo(nil), other.FD))
			}},
			{"while the ring's memory is away", func(v *vm, q *vhosttest.Queue, kick func()) {
				must(v.t, v.f.StartRing(q))
				must(v.t, v.f.Enable(q, true))
				must(v.t, v.f.RemoveBlock(v.g.Blocks[0]))
				kick()
				q.Kick.Clear()
				must(v.t, v.f.AddBlock(v.g.Blocks[0]))
			}},
			{"when there is no kick descriptor", func(v *vm, q *vhosttest.Queue, kick func()) {
				must(v.t, v.f.StartRing(q))
				must(v.t, v.f.Enable(q, true))
				must(v.t, v.f.Tell(wire.SetVringKick, wire.VringFD{Index: 1, NoFD: true}.AppendTo(nil)))
				kick()
			}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				e := newEcho()
				v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
				must(t, v.f.Start(v.g, v.features, v.queues[0]))
				q := v.queues[1]
				in, out := v.request("not lost")
				tt.when(v, q, func() {
					_, err := q.Add(in, out)
					must(t, err)
					must(t, q.Kick.Raise())
				})
				v.answer(1, out, "not lost")
				must(t, v.f.Stop(v.queues...))
			})
		}
	})
}

func TestDisabledRingIsLeftAlone(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
		v.start()
		v.echo(0, "enabled")
		must(t, v.f.Enable(v.queues[0], false))
		before := len(e.recorded())
		in, out := v.request("wait")
		_, err := v.queues[0].Add(in, out)
		must(t, err)
		must(t, v.queues[0].Kick.Raise())
		q := e.connection().Queue(0)
		if c, err := q.Pop(); c != nil || err != nil {
			t.Errorf("Pop found %v, %v", c, err)
		}
		v.echo(1, "the other one works")
		if v.queues[0].UsedIdx() != 1 || len(e.recorded()) != before {
			t.Error("the disabled ring was served")
		}
		must(t, v.f.Enable(v.queues[0], true))
		v.answer(0, out, "wait")
	})
}

// hold sends n requests through queue 0. The device keeps them.
func (v *vm) hold(e *echo, n int) (chains []*vhostuser.Chain, outs []vhosttest.Buffer) {
	v.t.Helper()
	e.mu.Lock()
	e.hold = true
	e.mu.Unlock()
	for i := range n {
		in, out := v.request(string(rune('a' + i)))
		outs = append(outs, out)
		_, err := v.queues[0].Add(in, out)
		must(v.t, err)
	}
	must(v.t, v.queues[0].Kick.Raise())
	eventually(v.t, "chains held",
		func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(e.held) == n })
	e.mu.Lock()
	e.hold = false
	e.mu.Unlock()
	return e.takeHeld(), outs
}

func TestOutstandingChainsComeBackAfterAStop(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		for _, tt := range []struct {
			name     string
			complete []int // chains to push before the stop
			used     uint16
			inOrder  uint16 // the same with IN_ORDER
		}{
			{"none completed", nil, 0, 0},
			{"the first completed", []int{0}, 1, 1},
			{"the last completed", []int{3}, 4, 0},
			{"one in the middle completed", []int{1}, 2, 0},
			{"two in the middle completed", []int{2, 1}, 3, 0},
			{"the last missing", []int{2, 0, 1}, 3, 3},
			{"all completed out of order", []int{2, 0, 3, 1}, 4, 4},
		} {
			t.Run(tt.name, func(t *testing.T) {
				e := newEcho()
				v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
				v.start()
				chains, _ := v.hold(e, 4)
				q := e.connection().Queue(0)
				for _, i := range tt.complete {
					must(t, echoChain(q, chains[i]))
				}
				_, err := v.f.StopRing(v.queues[0])
				must(t, err)
				if v.inOrder() {
					tt.used = tt.inOrder
				}
				v.checkDrained(0, tt.used)
				memory := v.g.Read(v.g.Blocks[0].Addr, v.g.Blocks[0].Size())
				for i, c := range chains {
					if slices.Contains(tt.complete, i) {
						continue
					}
					if _, err := c.WriteAt([]byte("x"), 0); !errors.Is(err, vhostuser.ErrQueueStopped) {
						t.Errorf("write to chain %d: %v", i, err)
					}
					if err := q.Push(c, 1); !errors.Is(err, vhostuser.ErrQueueStopped) {
						t.Errorf("push of chain %d: %v", i, err)
					}
				}
				if _, err := q.Pop(); !errors.Is(err, vhostuser.ErrQueueStopped) {
					t.Errorf("pop: %v", err)
				}
				if err := q.Notify(); !errors.Is(err, vhostuser.ErrQueueStopped) {
					t.Errorf("notify: %v", err)
				}
				if !slices.Equal(memory, v.g.Read(v.g.Blocks[0].Addr, v.g.Blocks[0].Size())) {
					t.Error("memory was written after the stop")
				}
				// Every request is answered exactly once in the end.
				must(t, v.f.StartRing(v.queues[0]))
				for range 4 {
					_, err := v.queues[0].Wait(10 * time.Second)
					must(t, err)
				}
				must(t, v.f.Stop(v.queues...))
				if v.queues[0].UsedIdx() != 4 || v.queues[0].Outstanding() != 0 {
					t.Errorf("used index %d, %d outstanding", v.queues[0].UsedIdx(), v.queues[0].Outstanding())
				}
			})
		}
	})
}

func TestDeviceMayFinishInQueueStopping(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
		v.start()
		chains, _ := v.hold(e, 4)
		e.set(&e.onStop, func(q *vhostuser.Queue) {
			if q.Index() != 0 || chains == nil {
				return
			}
			if c, err := q.Pop(); c != nil || err != nil {
				t.Errorf("Pop while stopping: %v, %v", c, err)
			}
			if err := q.Unpop(chains[0]); !errors.Is(err, vhostuser.ErrUnpopOrder) {
				t.Errorf("Unpop of the first chain: %v", err)
			}
			must(t, q.Unpop(chains[3]))
			must(t, q.Unpop(chains[2]))
			must(t, echoChain(q, chains[1]))
			must(t, echoChain(q, chains[0]))
			if err := q.Unpop(chains[0]); err == nil {
				t.Error("Unpop of a chain that is not outstanding")
			}
			if err := q.Push(chains[0], 0); err == nil {
				t.Error("Push of a chain that is not outstanding")
			}
			chains = nil
		})
		_, err := v.f.StopRing(v.queues[0])
		must(t, err)
		v.checkDrained(0, 2)
	})
}

func TestStopDoesNotWaitForABusyDriver(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	q := v.queues[0]
	e.set(&e.onKick, func(b *vhostuser.Queue) {
		// While Kick runs, the driver always adds another buffer.
		defer e.record("kick ends")
		for b.Index() == 0 {
			c, err := b.Pop()
			if c == nil || err != nil {
				return
			}
			q.SetDesc(0, 1<<20, 1, vhosttest.DescWrite, 0)
			q.PutAvail(0)
			if b.Push(c, 0) != nil {
				return
			}
		}
	})
	q.SetDesc(0, 1<<20, 1, vhosttest.DescWrite, 0)
	q.PutAvail(0)
	v.start()
	eventually(t, "busy", func() bool { return q.UsedIdx() > 100 })
	base, err := v.f.StopRing(q)
	must(t, err)
	if !slices.Contains(e.recorded(), "kick ends") {
		t.Error("Kick still runs")
	}
	if base != q.UsedIdx() {
		t.Errorf("base %d, used index %d", base, q.UsedIdx())
	}
}

func TestQueuesStopAndStartUnderTraffic(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
		v.start()
		const requests = 3000
		var wg sync.WaitGroup
		wg.Go(func() {
			q := v.queues[0]
			in, out := v.request("busy")
			for done := 0; done < requests; {
				for q.Outstanding() < 3 {
					if _, err := q.Add(in, out); err != nil {
						t.Error(err)
						return
					}
				}
				if err := q.Submit(); err != nil {
					t.Error(err)
					return
				}
				if _, err := q.Wait(20 * time.Second); err != nil {
					t.Error(err)
					return
				}
				done++
			}
		})
		stopped := make(chan struct{})
		go func() { wg.Wait(); close(stopped) }()
		for n := 0; ; n++ {
			select {
			case <-stopped:
				return
			default:
			}
			q := v.queues[0]
			must(t, v.f.Enable(q, n%2 == 0))
			index, err := v.f.StopRing(q)
			must(t, err)
			// The driver still runs, so its own state cannot be compared.
			if base := q.Base(); q.Packed() && base&0xffff != base>>16 || !q.Packed() &&
				index != q.UsedIdx() {
				t.Errorf("stopped at base %#x", base)
				return
			}
			must(t, v.f.StartRing(q))
			must(t, v.f.Enable(q, true))
		}
	})
}

func TestStatusZeroKeepsTheIndices(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
		v.start()
		for range 5 {
			v.echo(0, "five")
		}
		must(t, v.f.Tell(wire.SetStatus, wire.U64(0).AppendTo(nil)))
		if !slices.Contains(e.recorded(), "reset") {
			t.Error("the device was not reset")
		}
		_, err := v.f.StopRing(v.queues[0])
		must(t, err)
		v.checkDrained(0, 5)
		if s, err := v.f.AskU64(wire.GetStatus); err != nil || s != 0 {
			t.Errorf("status %d, %v", s, err)
		}
	})
}

func TestKickThatHangsIsLeftBehind(t *testing.T) {
	e := newEcho()
	hang := make(chan struct{})
	var once sync.Once
	entered := make(chan struct{})
	e.onKick = func(q *vhostuser.Queue) {
		if q.Index() == 0 {
			once.Do(func() { close(entered) })
			<-hang
		}
	}
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	<-entered
	_, err := v.f.StopRing(v.queues[0])
	must(t, err)
	must(t, v.f.StartRing(v.queues[0]))
	v.echo(1, "the other one works")
	close(hang)
	v.echo(0, "works again")
}

func TestChainOfAnEarlierRunIsRefused(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
		v.start()
		chains, outs := v.hold(e, 1)
		q := e.connection().Queue(0)
		must(t, v.f.Stop(v.queues[0]))
		must(t, v.f.StartRing(v.queues[0]))
		must(t, v.f.Enable(v.queues[0], true))
		v.answer(0, outs[0], "a") // it was served after the restart
		if _, err := chains[0].WriteAt([]byte("x"), 0); !errors.Is(err, vhostuser.ErrQueueStopped) {
			t.Errorf("write: %v", err)
		}
		if err := q.Push(chains[0], 1); !errors.Is(err, vhostuser.ErrQueueStopped) {
			t.Errorf("push: %v", err)
		}
		if used := v.queues[0].UsedIdx(); used != 1 {
			t.Errorf("used index %d, want 1", used)
		}
	})
}

func TestRingAsksForKicksWhenItIsEnabled(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	must(t, v.f.Start(v.g, v.features, v.queues[1]))
	q := v.queues[0]
	v.g.Write(q.UsedRing, []byte{1, 0}) // a previous backend suppressed kicks
	must(t, v.f.StartRing(q))
	must(t, v.f.Enable(q, true))
	eventually(t, "an end of the suppression", func() bool { return v.g.Read(q.UsedRing, 1)[0] == 0 })
}
