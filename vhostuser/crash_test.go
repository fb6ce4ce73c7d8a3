// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// The test ends the connection: for the frontend this is the same as a backend that
// died.
func TestRequestsInFlightSurviveTheConnection(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		e := newEcho()
		e.Device.TrackInflight = true
		path := serve(t, &e.Device)
		v := newVM(t, path, vhosttest.Options{}).speak(features)
		must(t, v.f.SetFeatures(v.features))
		inflight, err := v.f.GetInflight(2, 16)
		must(t, err)
		defer inflight.Close()
		must(t, v.f.SetInflight(inflight))
		v.start()
		v.echo(0, "before")
		chains, outs := v.hold(e, 4)
		q := e.connection().Queue(0)
		must(t, echoChain(q, chains[1]))
		must(t, echoChain(q, chains[3]))

		v.f.Close()
		eventually(t, "disconnected", func() bool { return len(e.errors()) == 1 })
		for _, i := range []int{0, 2} {
			if err := q.Push(chains[i], 0); !errors.Is(err, vhostuser.ErrQueueStopped) {
				t.Errorf("push to an old connection: %v", err)
			}
		}

		v.connect(path, vhosttest.Options{})
		must(t, v.f.SetFeatures(v.features))
		must(t, v.f.SetInflight(inflight))
		if !v.queues[0].Packed() {
			for _, q := range v.queues {
				q.Resume() // with a packed ring the frontend cannot find out the base
			}
		}
		v.start()
		for range 4 {
			u, err := v.queues[0].Wait(10 * time.Second)
			must(t, err)
			if u.Len != 1 {
				t.Errorf("answer of %d bytes", u.Len)
			}
		}
		for i, out := range outs {
			if got := v.g.Read(out.Addr, 1)[0]; got != byte('a'+i) {
				t.Errorf("answer %q to request %d", got, i)
			}
		}
		v.echo(0, "after")
		must(t, v.f.Stop(v.queues...))

		// Rings that were stopped by GET_VRING_BASE go on from their base.
		v.start2(t)
		v.echo(0, "and again")
	})
}

func TestInflightMemoryIsForDevicesThatWantIt(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	if v.f.Protocol.Has(wire.ProtocolInflightSHMFD) {
		t.Error("it is offered")
	}
}

// A split ring needs other inflight memory than a packed one. The format may change
// after the memory was made.
func TestInflightMemoryForAnotherFormatIsRefused(t *testing.T) {
	e := newEcho()
	e.Device.TrackInflight = true
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	must(t, v.f.SetFeatures(v.features))
	inflight, err := v.f.GetInflight(2, 8)
	must(t, err)
	defer inflight.Close()
	must(t, v.f.SetInflight(inflight))
	v.speak(1 << wire.FeatureRingPacked)
	must(t, v.f.SetFeatures(v.features))
	must(t, v.f.SetMemory(v.g))
	var refused *vhosttest.Refused
	if err := v.f.StartRing(v.queues[0]); !errors.As(err, &refused) {
		t.Errorf("a packed ring with memory for a split one: %v", err)
	}
}

func TestInvalidInflightMemoryIsRefused(t *testing.T) {
	e := newEcho()
	e.Device.TrackInflight = true
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	must(t, v.f.SetFeatures(v.features))
	for _, n := range [][2]int{{0, 8}, {3, 8}, {2, 0}, {2, 40000}} {
		var refused *vhosttest.Refused
		if _, err := v.f.GetInflight(n[0], n[1]); !errors.As(err, &refused) {
			t.Errorf("%d queues of %d: %v", n[0], n[1], err)
		}
	}
	good, err := v.f.GetInflight(2, 8)
	must(t, err)
	defer good.Close()
	for _, tt := range []struct {
		name   string
		change func(*wire.Inflight)
	}{
		{"too small for its queues", func(d *wire.Inflight) { d.MmapSize = 64 }},
		{"larger than its file", func(d *wire.Inflight) { d.MmapSize *= 2 }},
		{"beyond its file", func(d *wire.Inflight) { d.MmapOffset = 1 << 20 }},
		{"at an odd offset", func(d *wire.Inflight) { d.MmapOffset = 1 }},
		{"for more queues than there are", func(d *wire.Inflight) { d.NumQueues = 3 }},
	} {
		bad := *good
		tt.change(&bad.Desc)
		var refused *vhosttest.Refused
		if err := v.f.SetInflight(&bad); !errors.As(err, &refused) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	// A frontend may leave out the padding of the C structure.
	p := good.Desc.AppendTo(nil)
	must(t, v.f.Confirm(wire.SetInflightFD, p[:20], good.FD))
	v.start()
	var refused *vhosttest.Refused
	if err := v.f.SetInflight(good); !errors.As(err, &refused) {
		t.Errorf("for a started ring: %v", err)
	}
	v.echo(0, "goes on")
}

// QEMU 10 asks for memory by the queue-size of vhost-user-blk, and may then set a larger
// ring. Its requests are served, though they are not tracked.
func TestARingThatIsLargerThanItsInflightMemoryIsServed(t *testing.T) {
	e := newEcho()
	e.Device.TrackInflight = true
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	must(t, v.f.SetFeatures(v.features))
	inflight, err := v.f.GetInflight(2, 8)
	must(t, err)
	defer inflight.Close()
	must(t, v.f.SetInflight(inflight))
	v.start()
	v.echo(1, "tracked")
	large, err := vhosttest.NewQueue(v.g, 1, 16)
	must(t, err)
	defer large.Close()
	must(t, v.f.Stop(v.queues...))
	v.queues[1] = large
	must(t, v.f.StartRing(large))
	must(t, v.f.Enable(large, true))
	for range 3 * 16 {
		v.echo(1, "not tracked")
	}
}
