// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// refuse sends a request that has to be refused.
func (v *vm) refuse(req wire.Request, payload []byte, fds ...int) {
	v.t.Helper()
	var refused *vhosttest.Refused
	if err := v.f.Confirm(req, payload, fds...); !errors.As(err, &refused) {
		v.t.Errorf("%v: %v, want a refusal", req, err)
	}
}

// stale makes a request available on ring 0 while it is stopped. It stands for memory
// that another driver uses for its own data now. The function that it returns fails the
// test if the device has used the ring.
func (v *vm) stale() (untouched func(when string)) {
	v.t.Helper()
	v.echo(0, "the first driver")
	must(v.t, v.f.Stop(v.queues[0]))
	in, out := v.request("the second driver's own data")
	_, err := v.queues[0].Add(in, out)
	must(v.t, err)
	must(v.t, v.queues[0].Kick.Raise())
	before := v.g.Read(out.Addr, uint64(out.Len))
	used := v.queues[0].UsedIdx()
	return func(when string) {
		v.t.Helper()
		must(v.t, v.f.Barrier())
		time.Sleep(20 * time.Millisecond)
		if !slices.Equal(v.g.Read(out.Addr, uint64(out.Len)), before) || v.queues[0].UsedIdx() != used {
			v.t.Errorf("%s: the old ring was used", when)
		}
	}
}

// startWith sends what starts ring 0, without asking for acknowledgements, and enables
// it. The message bad, if there is one, has another payload and must be refused.
func (v *vm) startWith(bad wire.Request, payload []byte, fds ...int) {
	v.t.Helper()
	q := v.queues[0]
	for _, m := range []struct {
		req     wire.Request
		payload []byte
		fds     []int
	}{
		{wire.SetVringNum, wire.VringState{Num: uint32(q.Size)}.AppendTo(nil), nil},
		{wire.SetVringBase, wire.VringState{Num: q.Base()}.AppendTo(nil), nil},
		{wire.SetVringAddr, q.Addr(0).AppendTo(nil), nil},
		{wire.SetVringKick, wire.VringFD{}.AppendTo(nil), []int{q.Kick.FD}},
	} {
		if m.req == bad {
			v.refuse(bad, payload, fds...)
		} else {
			// The backend may refuse it, but this message does not ask for an answer.
			must(v.t, v.f.Send(m.req, 0, m.payload, m.fds...))
		}
	}
	must(v.t, v.f.Enable(q, true))
}

func TestRingDoesNotStartWithTheValueFromBeforeARefusal(t *testing.T) {
	state := func(n uint32) []byte { return wire.VringState{Num: n}.AppendTo(nil) }
	outside := wire.VringAddr{Desc: 0x1000, Avail: 0x2000, Used: 0x3000}.AppendTo(nil)
	for _, tt := range []struct {
		name    string
		req     wire.Request
		payload []byte
		fds     int
	}{
		{"an address outside of memory", wire.SetVringAddr, outside, 0},
		{"an address that is cut off", wire.SetVringAddr, outside[:12], 0},
		{"a size that is too large", wire.SetVringNum, state(1 << 20), 0},
		{"a size that comes with a descriptor", wire.SetVringNum, state(8), 1},
		{"a base that is no index", wire.SetVringBase, state(1 << 16), 0},
		{"a base of some more bytes", wire.SetVringBase, append(state(0), 0), 0},
		{"a kick whose descriptor is missing", wire.SetVringKick, wire.VringFD{}.AppendTo(nil), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
			v.start()
			untouched := v.stale()
			e.forget()
			fds := make([]int, tt.fds)
			for i := range fds {
				fds[i] = v.queues[0].Kick.FD
			}
			v.startWith(tt.req, tt.payload, fds...)
			untouched("after the refusal")
			if slices.Contains(e.recorded(), "queue 0 started") {
				t.Error("the ring was started")
			}
			// The next valid message takes effect.
			must(t, v.f.Enable(v.queues[0], false))
			v.queues[0].Reset()
			must(t, v.f.StartRings(v.queues[0]))
			v.echo(0, "the second driver")
		})
	}
}

// The rings of this guest are in RAM that is not shared with the backend. The session
// goes on, and one line in the log says why the ring does not run.
func TestRingInPrivateMemoryIsToldInOneLine(t *testing.T) {
	e := newEcho()
	var out zaptest.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), &out,
		zap.WarnLevel)
	path := serveWith(t, &e.Device, zap.New(core, zap.AddStacktrace(zap.WarnLevel)))
	v := newVM(t, path, vhosttest.Options{})
	must(t, v.f.SetFeatures(v.features))
	must(t, v.f.AddBlock(v.g.Blocks[1])) // the rings are in the first
	v.startWith(0, nil)
	must(t, v.f.Barrier())
	if q := e.connection().Queue(0); q.Running() {
		t.Error("the ring runs")
	}
	lines := out.Lines()
	if len(lines) != 1 || !strings.Contains(lines[0],
		"ring 0 cannot be used: map descriptor table: its 0x80 bytes") ||
		strings.Contains(lines[0], "stacktrace") {
		t.Errorf("the log says %q", lines)
	}
	// The ring can be started when the memory is shared.
	must(t, v.f.AddBlock(v.g.Blocks[0]))
	must(t, v.f.StartRings(v.queues[0]))
	v.echo(0, "in shared memory")
}

func TestRingDoesNotStartAtTheAddressFromBeforeAStop(t *testing.T) {
	for _, tt := range []struct {
		name string
		stop func(v *vm) error
	}{
		{"after GET_VRING_BASE", func(v *vm) error { _, err := v.f.StopRing(v.queues[0]); return err }},
		{"after RESET_DEVICE", func(v *vm) error { return v.f.Confirm(wire.ResetDevice, nil) }},
		{"after RESET_OWNER", func(v *vm) error { return v.f.Confirm(wire.ResetOwner, nil) }},
		{"after a status of zero", func(v *vm) error {
			return v.f.Confirm(wire.SetStatus, wire.U64(0).AppendTo(nil))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
			v.start()
			untouched := v.stale()
			// A translation that was never used is forgotten, too.
			q := v.queues[0]
			must(t, v.f.Confirm(wire.SetVringAddr, q.Addr(0).AppendTo(nil)))
			must(t, tt.stop(v))
			v.refuse(wire.SetVringKick, wire.VringFD{}.AppendTo(nil), q.Kick.FD)
			must(t, v.f.Enable(q, true))
			untouched("without an address")
			q.Reset()
			must(t, v.f.StartRings(q))
			v.echo(0, "the second driver")
		})
	}
}

func TestResetForgetsSizeAndBase(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	v.echo(0, "before")
	must(t, v.f.Confirm(wire.ResetDevice, nil))
	base, err := v.f.StopRing(v.queues[0])
	must(t, err)
	if base != 0 {
		t.Errorf("base %d after RESET_DEVICE", base)
	}
	v.refuse(wire.SetVringAddr, v.queues[0].Addr(0).AppendTo(nil)) // the ring has no size
}

func TestStartedRingIsPausedByARefusedAddress(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	v.echo(0, "before")
	v.refuse(wire.SetVringAddr, wire.VringAddr{Desc: 0x1000, Avail: 0x2000,
		Used: 0x3000}.AppendTo(nil))
	in, out := v.request("waits")
	_, err := v.queues[0].Add(in, out)
	must(t, err)
	must(t, v.queues[0].Kick.Raise())
	// A change of memory does not bring the old address back.
	more, err := v.g.AddBlock(v.g.End(), 1<<16)
	must(t, err)
	must(t, v.f.AddBlock(more))
	time.Sleep(20 * time.Millisecond)
	if n := v.queues[0].UsedIdx(); n != 1 {
		t.Errorf("used index %d of a ring that is nowhere", n)
	}
	must(t, v.f.SetAddr(v.queues[0]))
	v.answer(0, out, "waits")
	v.echo(1, "the other ring")
}

func TestRingsDoNotStartAfterRefusedFeatures(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	untouched := v.stale()
	v.refuse(wire.SetFeatures, wire.U64(virtioFeatures|1<<wire.FeatureRingPacked|1<<25).AppendTo(nil))
	v.echo(1, "a ring that runs goes on")
	q := v.queues[0]
	if err := v.f.StartRing(q); err == nil {
		t.Error("a ring was started in a format that nobody knows")
	}
	must(t, v.f.Enable(q, true))
	untouched("after refused features")
	must(t, v.f.SetFeatures(virtioFeatures))
	q.Reset()
	must(t, v.f.StartRings(q))
	v.echo(0, "the second driver")
}

// A frontend that did not ask for an acknowledgement assumes that logging is on. So the
// backend must log although it refused the features.
func TestRefusedFeaturesSwitchLoggingOn(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	log, err := vhosttest.NewLog(v.g.End())
	must(t, err)
	defer log.Close()
	must(t, v.f.SetLog(log, (v.g.End()/page/64+1)*8))
	v.refuse(wire.SetFeatures, wire.U64(virtioFeatures|1<<wire.FeatureLogAll|1<<25).AppendTo(nil))
	in, out := v.request("is logged")
	_, err = v.queues[0].Add(in, out)
	must(t, err)
	must(t, v.queues[0].Kick.Raise())
	v.answer(0, out, "is logged")
	if !slices.Contains(log.Harvest(), out.Addr/page) {
		t.Error("what the device wrote is not in the log")
	}
}

func TestRingsDoNotStartAfterRefusedInflightMemory(t *testing.T) {
	e := newEcho()
	e.TrackInflight = true
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	must(t, v.f.SetFeatures(v.features))
	must(t, v.f.SetMemory(v.g))
	good, err := v.f.GetInflight(2, 8)
	must(t, err)
	defer good.Close()
	must(t, v.f.SetInflight(good))
	must(t, v.f.StartRings(v.queues...))
	v.echo(0, "before")
	bad := wire.Inflight{MmapSize: 64, NumQueues: 2, QueueSize: 8}.AppendTo(nil)
	v.refuse(wire.SetInflightFD, bad, v.g.Blocks[0].FD)
	v.echo(0, "rings that run go on")
	must(t, v.f.Stop(v.queues...))
	v.refuse(wire.SetInflightFD, bad, v.g.Blocks[0].FD)
	if err := v.f.StartRing(v.queues[0]); err == nil {
		t.Error("a ring was started without its record")
	}
	must(t, v.f.SetInflight(good))
	must(t, v.f.StartRings(v.queues...))
	v.echo(0, "after")
}

func TestRefusedDescriptorsOfARingLeaveThoseBefore(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	q := v.queues[0]
	fds := []int{q.Kick.FD, q.Kick.FD}
	for _, req := range []wire.Request{wire.SetVringCall, wire.SetVringKick, wire.SetVringErr} {
		v.refuse(req, wire.VringFD{}.AppendTo(nil), fds...)
		v.refuse(req, wire.VringFD{}.AppendTo(nil))
		v.refuse(req, wire.U64(1<<9).AppendTo(nil), fds[:1]...)
	}
	v.refuse(wire.SetVringEnable, wire.VringState{Num: 2}.AppendTo(nil))
	v.echo(0, "kicked, enabled and called as before")
}

func TestCallDescriptorThatCannotBeRaisedDoesNotStopTheRing(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	must(t, v.f.Start(v.g, v.features))
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(null)
	q := v.queues[0]
	must(t, v.f.Tell(wire.SetVringCall, wire.VringFD{}.AppendTo(nil), null))
	must(t, v.f.StartRing(q))
	must(t, v.f.Enable(q, true))
	v.echo(0, "by another descriptor")
}

func TestRefusedChannelEndsTheOneBefore(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	v.refuse(wire.SetBackendReqFD, nil, v.queues[0].Kick.FD)
	e.connection().ConfigChanged()
	if _, err := v.f.Channel.Next(10 * time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("the channel that the frontend replaced: %v", err)
	}
	v.echo(0, "goes on")
}

func TestRefusedTranslationsAreForgotten(t *testing.T) {
	const nowhere = 1 << 46
	for _, tt := range []struct {
		name   string
		refuse func(m *vhosttest.IOMMU, iova uint64) error
	}{
		{"an update to where there is no memory", func(m *vhosttest.IOMMU, iova uint64) error {
			return m.Update(iova, page, nowhere, readWrite)
		}},
		{"an update of nothing", func(m *vhosttest.IOMMU, iova uint64) error {
			return m.Update(iova, 0, nowhere, readWrite)
		}},
		{"an invalidation of nothing", func(m *vhosttest.IOMMU,
			iova uint64) error {
			return m.Invalidate(iova, 0)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			v, m := iommuVM(t, e)
			in, out := v.request("translated")
			must(t, v.echoIOVA(0, "translated", vhosttest.IOVA(in.Addr), vhosttest.IOVA(out.Addr)))
			before, _ := m.Misses()
			if err := tt.refuse(m, vhosttest.IOVA(out.Addr)); err == nil {
				t.Error("it was accepted")
			}
			must(t, v.echoIOVA(0, "translated", vhosttest.IOVA(in.Addr), vhosttest.IOVA(out.Addr)))
			if after, _ := m.Misses(); after == before {
				t.Error("the translation of before was used")
			}
		})
	}
}
