// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

func TestBadRequestsAreRefusedAndTheConnectionGoesOn(t *testing.T) {
	const page = 4096
	state := func(i, n uint32) []byte { return wire.VringState{Index: i, Num: n}.AppendTo(nil) }
	u64 := func(v uint64) []byte { return wire.U64(v).AppendTo(nil) }
	region := func(r wire.MemRegion) []byte { return wire.SingleMemRegion{MemRegion: r}.AppendTo(nil) }
	mem := wire.MemRegion{GuestAddr: 1 << 40, Size: page, UserAddr: 1 << 46}
	with := func(f func(*wire.MemRegion)) []byte {
		r := mem
		f(&r)
		return region(r)
	}
	for _, tt := range []struct {
		name    string
		req     wire.Request
		payload []byte
		fds     int
	}{
		{"an unknown request", 4711, nil, 0},
		{"request zero", 0, nil, 0},
		{"a request for network devices", wire.NetSetMTU, u64(1500), 0},
		{"a request that is not supported", wire.PostcopyListen, nil, 0},
		{"a payload that is too short", wire.SetFeatures, u64(0)[:7], 0},
		{"a payload that is too long", wire.SetFeatures, append(u64(0), 0), 0},
		{"a payload where none belongs", wire.SetOwner, u64(0), 0},
		{"a surplus descriptor", wire.SetOwner, nil, 1},
		{"many surplus descriptors", wire.SetFeatures, u64(0), 16},
		{"a missing descriptor", wire.SetBackendReqFD, nil, 0},
		{"a channel that is no socket", wire.SetBackendReqFD, nil, 1},
		{"features that were not offered", wire.SetFeatures, u64(1 << 33), 0},
		{"protocol features that were not offered", wire.SetProtocolFeatures, u64(1 << 12), 0},
		{"a ring that does not exist", wire.SetVringNum, state(2, 8), 0},
		{"a ring far outside", wire.SetVringEnable, state(^uint32(0), 1), 0},
		{"an address for a ring that does not exist", wire.SetVringAddr,
			wire.VringAddr{Index: 2}.AppendTo(nil), 0},
		{"an address of no memory", wire.SetVringAddr,
			wire.VringAddr{Desc: 16, Avail: 16, Used: 16}.AppendTo(nil), 0},
		{"an address with unknown flags", wire.SetVringAddr, wire.VringAddr{Flags: 2}.AppendTo(nil), 0},
		{"a ring of size zero", wire.SetVringNum, state(1, 0), 0},
		{"a ring whose size is odd", wire.SetVringNum, state(1, 9), 0},
		{"a ring that is too large", wire.SetVringNum, state(1, 2048), 0},
		{"another size for a started ring", wire.SetVringNum, state(0, 4), 0},
		{"another base for a started ring", wire.SetVringBase, state(0, 4), 0},
		{"a base that is no index", wire.SetVringBase, state(1, 1<<16), 0},
		{"enabling by a number", wire.SetVringEnable, state(0, 2), 0},
		{"a kick for a ring that has no address", wire.SetVringKick, u64(1), 1},
		{"a kick for a ring that does not exist", wire.SetVringKick, u64(2), 1},
		{"a kick with unknown bits", wire.SetVringKick, u64(1 << 9), 1},
		{"a descriptor in spite of NOFD", wire.SetVringCall, u64(1 << 8), 1},
		{"no descriptor without NOFD", wire.SetVringErr, u64(0), 0},
		{"several descriptors for a ring", wire.SetVringCall, u64(0), 2},
		{"a memory table with too few descriptors", wire.SetMemTable,
			wire.MemTable{mem, mem}.AppendTo(nil), 1},
		{"a memory table of nine regions", wire.SetMemTable, append([]byte{9}, make([]byte, 7+9*32)...),
			8},
		{"a memory table that is cut off", wire.SetMemTable, append([]byte{1}, make([]byte, 30)...), 1},
		{"a region without a descriptor", wire.AddMemReg, region(mem), 0},
		{"a region of size zero", wire.AddMemReg, with(func(r *wire.MemRegion) { r.Size = 0 }), 1},
		{"a region that is larger than its file", wire.AddMemReg,
			with(func(r *wire.MemRegion) { r.Size = 2 * page }), 1},
		{"a region that begins after its file", wire.AddMemReg,
			with(func(r *wire.MemRegion) { r.MmapOffset = page }), 1},
		{"a region whose offset wraps", wire.AddMemReg,
			with(func(r *wire.MemRegion) { r.MmapOffset = ^uint64(7) }), 1},
		{"a region whose offset is odd", wire.AddMemReg,
			with(func(r *wire.MemRegion) { r.MmapOffset, r.Size = 1, 1 }), 1},
		{"a region that wraps in guest memory", wire.AddMemReg,
			with(func(r *wire.MemRegion) { r.GuestAddr = ^uint64(0) }), 1},
		{"a region that wraps in the frontend", wire.AddMemReg,
			with(func(r *wire.MemRegion) { r.UserAddr = ^uint64(0) }), 1},
		{"a region over another one", wire.AddMemReg,
			with(func(r *wire.MemRegion) { r.GuestAddr = 1 << 20 }), 1},
		{"removal of a region that is not there", wire.RemMemReg, region(mem), 0},
		{"a config write that is too long", wire.SetConfig,
			append(make([]byte, 4), append([]byte{1, 1}, make([]byte, 6)...)...), 0},
		{"a status of nine bits", wire.SetStatus, u64(256), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
			must(t, v.f.Start(v.g, v.features, v.queues[0]))
			file, err := vhosttest.NewGuest(page)
			must(t, err)
			defer file.Close()
			fds := make([]int, tt.fds)
			for i := range fds {
				fds[i] = file.Blocks[0].FD
			}
			var refused *vhosttest.Refused
			if err := v.f.Confirm(tt.req, tt.payload, fds...); !errors.As(err, &refused) {
				t.Errorf("got %v", err)
			}
			// A message that does not ask for an acknowledgement must not get one.
			must(t, v.f.Send(tt.req, 0, tt.payload, fds...))
			must(t, v.f.Barrier())
			switch tt.req { // after the refusal nothing is set: send a valid value
			case wire.SetMemTable:
				must(t, v.f.SetTable(v.g))
			case wire.SetVringAddr:
				must(t, v.f.SetAddr(v.queues[0]))
			}
			v.echo(0, "goes on")
		})
	}
}

func TestStreamsOutOfStepEndTheConnection(t *testing.T) {
	header := func(req wire.Request, flags, size uint32) []byte {
		return wire.Header{Request: uint32(req), Flags: flags, Size: size}.AppendTo(nil)
	}
	for _, tt := range []struct {
		name string
		raw  []byte
		fds  int
		hang bool // hang up afterwards
		want string
	}{
		{"a version that does not exist", header(wire.GetFeatures, 2, 0), 0, false, "version"},
		{"no version", header(wire.GetFeatures, 0, 0), 0, false, "version"},
		{"a reply", header(wire.GetFeatures, wire.ReplyFlags, 0), 0, false, "reply instead"},
		{"an endless payload", header(wire.GetFeatures, 1, ^uint32(0)), 0, false, "longer than"},
		{"half a header", header(wire.GetFeatures, 1, 0)[:5], 0, true, "unexpected EOF"},
		{"half a payload", append(header(wire.SetFeatures, 1, 8), 1, 2), 0, true, "unexpected EOF"},
		{"no payload at all", header(wire.SetFeatures, 1, 8), 0, true, "unexpected EOF"},
		{"more descriptors than any message has", header(wire.SetOwner, 1, 0), 40, false, "descriptors"},
		{"a question with a bad ring", append(header(wire.GetVringBase, 1, 8), 9, 0, 0, 0, 0, 0, 0, 0), 0,
			false, "does not exist"},
		{"a question with a bad size", append(header(wire.GetVringBase, 1, 1), 9), 0, false, "payload"},
		{"a question about too much config", append(header(wire.GetConfig, 1, 12), 0, 0, 0, 0, 0, 2, 0, 0,
			0, 0, 0, 0), 0, false, "at most"},
		{"a log without a descriptor", append(header(wire.SetLogBase, 1, 16), make([]byte, 16)...), 0,
			false, "descriptors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			path := serve(t, &e.Device)
			v := newVM(t, path, vhosttest.Options{})
			v.start()
			fds := make([]int, tt.fds)
			for i := range fds {
				fds[i] = v.g.Blocks[0].FD
			}
			must(t, v.f.SendRaw(tt.raw, fds...))
			if tt.hang {
				v.f.Close()
			} else if _, err := v.f.Recv(); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("receive: %v", err)
			}
			eventually(t, "disconnected", func() bool { return e.lastError() != nil })
			if err := e.lastError(); !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			v.f.Close()
			v.connect(path, vhosttest.Options{})
			for _, q := range v.queues {
				q.Resume()
			}
			v.start()
			v.echo(0, "the next frontend is served")
		})
	}
}

func TestRequestsNeedTheirProtocolFeature(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device),
		vhosttest.Options{Without: ^wire.ProtocolFeatures(1 << wire.ProtocolReplyAck)})
	for _, req := range []wire.Request{
		wire.SetBackendReqFD, wire.AddMemReg, wire.RemMemReg, wire.SetConfig, wire.ResetDevice,
		wire.SetStatus,
	} {
		err := v.f.Confirm(req, nil)
		var refused *vhosttest.Refused
		if !errors.As(err, &refused) {
			t.Errorf("%v: %v", req, err)
		}
	}
	// SET_VRING_ENABLE needs a feature bit that was not negotiated.
	var refused *vhosttest.Refused
	if err := v.f.Confirm(wire.SetVringEnable, wire.VringState{Num: 1}.AppendTo(nil)); !errors.As(err,
		&refused) {
		t.Errorf("SET_VRING_ENABLE: %v", err)
	}
}

func TestRingsRunWithoutEnableForOldFrontends(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{Without: ^wire.ProtocolFeatures(0)})
	must(t, v.f.Send(wire.SetFeatures, 0, wire.U64(virtioFeatures).AppendTo(nil)))
	must(t, v.f.SetTable(v.g))
	must(t, v.f.StartRing(v.queues[0]))
	v.echo(0, "no enable")
	must(t, v.f.Send(wire.ResetOwner, 0, nil))
	must(t, v.f.Barrier())
	if q := e.connection().Queue(0); q.Running() {
		t.Error("the queue runs after RESET_OWNER")
	}
}

func TestMemoryThatIsTruncatedBreaksTheQueueOnly(t *testing.T) {
	t.Run("of the ring", func(t *testing.T) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		v.start()
		v.echo(0, "before")
		must(t, v.g.Blocks[0].Truncate())
		must(t, v.queues[0].Kick.Raise())
		q := e.connection().Queue(0)
		eventually(t, "broken", func() bool { return !q.Running() })
		_, err := q.Pop()
		var fault *vhostuser.MemoryFault
		if !errors.As(err, &fault) || fault.Addr == 0 {
			t.Errorf("Pop: %v", err)
		}
		must(t, v.f.Barrier())
		// A ring in such memory cannot be started either.
		must(t, v.f.Stop(v.queues[0]))
		if err := v.f.StartRing(v.queues[0]); err == nil {
			t.Error("ring was started")
		}
	})
	t.Run("of a buffer", func(t *testing.T) {
		e := newEcho()
		errs := make(chan error, 3)
		e.Device.Kick = func(q *vhostuser.Queue) {
			for {
				c, err := q.Pop()
				if c == nil || err != nil {
					return
				}
				_, err = c.ReadAt(make([]byte, 1), 0)
				errs <- err
				_, err = c.WriteAt(make([]byte, 1), 0)
				errs <- err
				errs <- vhostuser.Guard(func() error {
					errs <- errors.New(string(c.Readable()[0].Bytes))
					return nil
				})
				if err := q.Push(c, 0); err != nil {
					errs <- err
				}
				if err := q.Notify(); err != nil {
					errs <- err
				}
			}
		}
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		in := vhosttest.Buffer{Addr: v.g.Blocks[1].Alloc(1), Len: 1}
		out := vhosttest.Buffer{Addr: v.g.Blocks[1].Alloc(1), Len: 1, Write: true}
		v.start()
		must(t, v.g.Blocks[1].Truncate())
		_, err := v.queues[0].Add(in, out)
		must(t, err)
		must(t, v.queues[0].Kick.Raise())
		for range 3 {
			var fault *vhostuser.MemoryFault
			if err := <-errs; !errors.As(err, &fault) {
				t.Errorf("access: %v", err)
			}
		}
		if _, err := v.queues[0].Wait(10 * time.Second); err != nil {
			t.Error(err)
		}
	})
	t.Run("under a device that forgot its guard", func(t *testing.T) {
		e := newEcho()
		sum := 0
		e.Device.Kick = func(q *vhostuser.Queue) {
			if c, _ := q.Pop(); c != nil {
				defer q.Push(c, 0) // the chain keeps the memory mapped: give it back
				sum += int(c.Readable()[0].Bytes[0])
			}
		}
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		in := vhosttest.Buffer{Addr: v.g.Blocks[1].Alloc(1), Len: 1}
		v.start()
		must(t, v.g.Blocks[1].Truncate())
		_, err := v.queues[0].Add(in)
		must(t, err)
		must(t, v.queues[0].Kick.Raise())
		eventually(t, "broken", func() bool { return !e.connection().Queue(0).Running() })
		must(t, v.f.Barrier())
	})
}
