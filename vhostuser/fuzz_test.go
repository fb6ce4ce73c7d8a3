// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// FuzzChains gives the queue a hostile ring. The descriptor table, an indirect table
// and the available ring are the fuzzer's bytes.
func FuzzChains(f *testing.F) {
	d := vhosttest.EncodeDesc
	join := func(ds ...[]byte) []byte { return bytes.Join(ds, nil) }
	const base = 1 << 20
	f.Add(join(d(base+0x8000, 16, 1, 1), d(base+0x9000, 16, 2, 0)), []byte{}, []byte{0, 0}, uint16(1))
	f.Add(join(d(base+0xfff8, 16, 1, 1), d(base+0xff00, 0x1000, 2, 0)), []byte{}, []byte{0, 0, 1, 0},
		uint16(2))
	f.Add(join(d(base, 1, 1, 0)), []byte{}, []byte{0, 0}, uint16(1))
	f.Add(join(d(base+0x1f000, 48, 4, 0)), join(d(base, 0, 1, 1), d(base+0x8000, 8, 1, 2),
		d(base+0x8fff, 2, 2, 0)), []byte{0, 0}, uint16(1))
	f.Add(join(d(base+0x1f000, 32, 4, 0)), join(d(base, 1, 1, 1), d(base, 1, 1, 0)), []byte{0, 0},
		uint16(9))
	f.Add(join(d(^uint64(0), ^uint32(0), 3, 7)), []byte{}, []byte{8, 0}, uint16(0xffff))
	r := newRig(f, 0)
	f.Fuzz(func(t *testing.T, table, indirect, heads []byte, availIdx uint16) {
		r.restart(t)
		r.g.Write(r.vq.Desc, table[:min(len(table), 128)])
		r.g.Write(base+0x1f000, indirect[:min(len(indirect), 0x1000)])
		r.g.Write(r.vq.Avail+4, heads[:min(len(heads), 16)])
		r.vq.SetAvailIdx(availIdx)
		r.exhaust(t)
	})
}

// FuzzPackedChains does the same with a packed ring. The descriptors, an indirect table
// and the driver's event suppression are the fuzzer's bytes.
func FuzzPackedChains(f *testing.F) {
	d := vhosttest.EncodePacked
	join := func(ds ...[]byte) []byte { return bytes.Join(ds, nil) }
	const base, avail = 1 << 20, vhosttest.DescAvail
	f.Add(join(d(base+0x8000, 16, 0xffff, avail|1), d(base+0x9000, 16, 3, avail|2)), []byte{},
		[]byte{}, byte(0), byte(0))
	f.Add(join(d(base+0xfff8, 16, 0, avail), d(base+0xff00, 0x1000, 1, avail|2)), []byte{},
		[]byte{1, 0x80, 2, 0}, byte(1), byte(0))
	f.Add(join(d(base+0x1f000, 48, 5, avail|4)),
		join(d(base, 0, 0, 0), d(base+0x8000, 8, 0, 0), d(base+0x8fff, 2, 0, 2)), []byte{}, byte(3),
		byte(0))
	f.Add(bytes.Repeat(d(base, 1, 1, avail|1), 8), []byte{}, []byte{}, byte(2), byte(5))
	f.Add(bytes.Repeat(d(base+0x8000, 1, 1, vhosttest.DescUsed|2), 8), []byte{}, []byte{}, byte(3),
		byte(13))
	var rigs []*rig
	for _, more := range []uint64{0, 1 << wire.FeatureEventIdx, 1 << wire.FeatureInOrder,
		1<<wire.FeatureEventIdx | 1<<wire.FeatureInOrder} {
		rigs = append(rigs, newRig(f, 1<<wire.FeatureRingPacked|more))
	}
	f.Fuzz(func(t *testing.T, ring, indirect, event []byte, dialect, start byte) {
		r := rigs[int(dialect)%len(rigs)]
		r.q.stop(false)
		r.vq.Warp(uint16(start))
		r.start(t)
		r.g.Write(r.vq.Desc, ring[:min(len(ring), 128)])
		r.g.Write(base+0x1f000, indirect[:min(len(indirect), 0x1000)])
		r.g.Write(r.vq.Avail, event[:min(len(event), 4)])
		r.exhaust(t)
	})
}

// exhaust serves all available chains, and checks that each page that has changed is in
// the log.
func (r *rig) exhaust(t *testing.T) {
	t.Helper()
	const base = 1 << 20
	r.log.Harvest()
	before := [][]byte{r.g.Read(base, 1<<16), r.g.Read(base+1<<16, 1<<16)}
	r.q.quiet()
	popped := 0
	for {
		c, err := r.q.Pop()
		if c == nil {
			var ring *RingError
			if err != nil && !errors.As(err, &ring) {
				t.Fatalf("unexpected error %v", err)
			}
			break
		}
		// A completion may overwrite the ring itself, because the buffers may lie in
		// it. In a packed ring this can make further buffers available.
		if popped++; popped > 8 && (!r.vq.Packed() || popped > 1000) {
			if !r.vq.Packed() {
				t.Fatalf("popped %d chains from a ring of 8", popped)
			}
			check(t, r.q.Push(c, 0))
			break
		}
		r.use(t, c)
	}
	if err := r.q.Notify(); err != nil && r.q.Running() {
		t.Fatal(err)
	}
	r.q.ifActive(func() {
		r.q.ring.askKicks()
		r.q.ring.fresh()
	})

	logged := make(map[uint64]bool)
	for _, p := range r.log.Harvest() {
		logged[p] = true
	}
	for i, old := range before {
		start := uint64(base + i<<16)
		now := r.g.Read(start, 1<<16)
		for off := 0; off < len(old); off += vhosttest.PageSize {
			page := (start + uint64(off)) / vhosttest.PageSize
			if !bytes.Equal(old[off:off+vhosttest.PageSize], now[off:off+vhosttest.PageSize]) &&
				!logged[page] {
				t.Fatalf("page %#x changed and is not in the log", page)
			}
		}
	}
}

// use reads and writes all of c and completes it.
func (r *rig) use(t *testing.T, c *Chain) {
	var sums [2]uint32
	for i, segs := range [][]Segment{c.Readable(), c.Writable()} {
		for _, s := range segs {
			sums[i] += uint32(len(s.Bytes))
		}
	}
	if sums[0] != c.ReadableLen() || sums[1] != c.WritableLen() {
		t.Fatalf("segments have %v bytes, lengths are %d and %d", sums, c.ReadableLen(), c.WritableLen())
	}
	p := make([]byte, min(sums[0], 1<<18))
	if n, err := c.ReadAt(p, 0); err != nil || n != len(p) {
		t.Fatalf("read %d of %d: %v", n, len(p), err)
	}
	p = bytes.Repeat([]byte{0xa5}, int(min(sums[1], 1<<18))+1)
	n, err := c.WriteAt(p, 0)
	if n > int(sums[1]) || sums[1] < 1<<18 && !errors.Is(err, io.ErrShortWrite) {
		t.Fatalf("wrote %d into %d: %v", n, sums[1], err)
	}
	if err := r.q.Push(c, uint32(n)); err != nil {
		t.Fatal(err)
	}
}

// FuzzDispatch sends messages to a running backend. The fuzzer's bytes are the request,
// the flags, the number of descriptors, the payload length and the payload of each.
func FuzzDispatch(f *testing.F) {
	msg := func(req wire.Request, fds byte, payload []byte) []byte {
		return append([]byte{byte(req), 9, fds, byte(len(payload))}, payload...)
	}
	u64 := func(v uint64) []byte { return wire.U64(v).AppendTo(nil) }
	f.Add(msg(wire.GetFeatures, 0, nil))
	f.Add(bytes.Join([][]byte{
		msg(wire.SetProtocolFeatures, 0,
			u64(1<<wire.ProtocolReplyAck|1<<wire.ProtocolConfigureMemSlots|1<<wire.ProtocolLogSHMFD)),
		msg(wire.SetFeatures, 0, u64(1<<wire.FeatureLogAll|1<<wire.FeatureProtocolFeatures)),
		msg(wire.AddMemReg, 1, wire.SingleMemRegion{MemRegion: wire.MemRegion{GuestAddr: 4096, Size: 4096,
			UserAddr: 4096}}.AppendTo(nil)),
		msg(wire.SetLogBase, 1, wire.Log{Size: 4096}.AppendTo(nil)),
		msg(wire.SetVringNum, 0, wire.VringState{Num: 8}.AppendTo(nil)),
		msg(wire.SetVringAddr, 0, wire.VringAddr{Flags: 1, Desc: 4096, Avail: 5000,
			Used: 6000}.AppendTo(nil)),
		msg(wire.SetVringKick, 0, wire.VringFD{NoFD: true}.AppendTo(nil)),
		msg(wire.SetVringEnable, 0, wire.VringState{Num: 1}.AppendTo(nil)),
		msg(wire.GetVringBase, 0, wire.VringState{}.AppendTo(nil)),
		msg(wire.RemMemReg, 0, wire.SingleMemRegion{MemRegion: wire.MemRegion{GuestAddr: 4096, Size: 4096,
			UserAddr: 4096}}.AppendTo(nil)),
	}, nil))
	f.Add(msg(wire.SetMemTable, 2, wire.MemTable{{GuestAddr: 0, Size: 4096},
		{GuestAddr: 4096, Size: 4096, UserAddr: 4096}}.AppendTo(nil)))
	f.Add(msg(wire.GetConfig, 0, wire.Config{Data: make([]byte, 8)}.AppendTo(nil)))
	f.Add(msg(wire.SetConfig, 0, wire.Config{Data: make([]byte, 8)}.AppendTo(nil)))
	f.Add(msg(wire.SetVringCall, 1, u64(0)))
	f.Add(msg(wire.SetStatus, 0, u64(0)))
	f.Add(msg(wire.ResetDevice, 0, nil))
	everything := msg(wire.SetProtocolFeatures, 0,
		u64(1<<wire.ProtocolReplyAck|1<<wire.ProtocolConfigureMemSlots|
			1<<wire.ProtocolLogSHMFD|1<<wire.ProtocolDeviceState|1<<wire.ProtocolPageFault|1<<wire.ProtocolSharedObject|
			1<<wire.ProtocolBackendReq|1<<wire.ProtocolInbandNotify|1<<wire.ProtocolInflightSHMFD))
	slot := wire.SingleMemRegion{MemRegion: wire.MemRegion{GuestAddr: 4096, Size: 4096,
		UserAddr: 4096}}.AppendTo(nil)
	f.Add(bytes.Join([][]byte{everything,
		msg(wire.SetDeviceStateFD, 1, wire.DeviceState{Direction: wire.Load}.AppendTo(nil)),
		msg(wire.CheckDeviceState, 0, nil),
		msg(wire.SetDeviceStateFD, 1, wire.DeviceState{Direction: wire.Save}.AppendTo(nil)),
		msg(wire.SetLogFD, 1, nil), msg(wire.GetSharedObject, 0, make([]byte, 16)),
	}, nil))
	f.Add(bytes.Join([][]byte{everything,
		msg(wire.PostcopyAdvise, 0, nil), msg(wire.PostcopyListen, 0, nil),
		msg(wire.AddMemReg, 1, slot), msg(wire.AddMemReg, 0, u64(0)),
		msg(wire.SetMemTable, 1, wire.MemTable{{GuestAddr: 4096, Size: 4096,
			UserAddr: 4096}}.AppendTo(nil)),
		msg(wire.SetMemTable, 0, u64(0)), msg(wire.AddMemReg, 1, slot), msg(wire.RemMemReg, 0, slot),
		msg(wire.PostcopyEnd, 0, nil),
	}, nil))
	f.Add(bytes.Join([][]byte{everything,
		msg(wire.SetFeatures, 0, u64(1<<wire.FeatureAccessPlatform|1<<wire.FeatureProtocolFeatures)),
		msg(wire.AddMemReg, 1, slot),
		msg(wire.SetVringNum, 0, wire.VringState{Num: 8}.AppendTo(nil)),
		msg(wire.SetVringAddr, 0, wire.VringAddr{Desc: 0, Avail: 512, Used: 1024}.AppendTo(nil)),
		msg(wire.SetVringEnable, 0, wire.VringState{Num: 1}.AppendTo(nil)),
		msg(wire.VringKick, 0, wire.VringState{}.AppendTo(nil)),
		msg(wire.IOTLBMsg, 0, wire.IOTLB{Size: 4096, UserAddr: 4096, Perm: 3,
			Type: wire.IOTLBUpdate}.AppendTo(nil)),
		msg(wire.IOTLBMsg, 0, wire.IOTLB{IOVA: 1024, Size: 512,
			Type: wire.IOTLBInvalidate}.AppendTo(nil)),
		msg(wire.GetVringBase, 0, wire.VringState{}.AppendTo(nil)),
	}, nil))

	dev := &Device{
		Features: 1<<wire.FeatureAccessPlatform | 1<<wire.FeatureRingPacked |
			1<<wire.FeatureEventIdx,
		NumQueues:     2,
		TrackInflight: true,
		Kick:          func(q *Queue) { drain(q) },
		ReadConfig:    func([]byte, uint32) error { return nil },
		WriteConfig:   func([]byte, uint32) error { return nil },
		SaveState:     func(w io.Writer) error { _, err := w.Write(make([]byte, 100)); return err },
		LoadState: func(r io.Reader) error {
			_, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			return err
		},
		SharedObject: func(wire.UUID) (int, error) { return 0, errors.New("there is none") },
	}
	s, err := NewServer(dev, nil)
	if err != nil {
		f.Fatal(err)
	}
	mem, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { unix.Close(mem) })
	if err := unix.Ftruncate(mem, 8192); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		l, err := FromFD(fds[1])
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Serve(t.Context(), l) // the error depends on the fuzzer's bytes
		}()
		send(fds[0], mem, b)
		unix.Close(fds[0])
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatal("the backend hangs")
		}
		_ = l.Close()
	})
}

// send writes the messages that b describes, until the socket returns an error.
func send(fd, mem int, b []byte) {
	for n := 0; len(b) >= 4 && n < 64; n++ {
		h := wire.Header{Request: uint32(b[0]), Flags: uint32(b[1]), Size: uint32(b[3])}
		nfds := int(b[2] % 20)
		p := b[4:min(len(b), 4+int(b[3]))]
		b = b[4+len(p):]
		var oob []byte
		if nfds > 0 {
			fds := make([]int, nfds)
			for i := range fds {
				fds[i] = mem
			}
			oob = unix.UnixRights(fds...)
		}
		if unix.Sendmsg(fd, append(h.AppendTo(nil), p...), oob, nil,
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) != nil {
			return
		}
	}
}

func drain(q *Queue) {
	for {
		c, err := q.Pop()
		if c == nil || err != nil {
			return
		}
		_ = q.Push(c, 0)
	}
}

func TestMarkSetsExactlyTheBitsOfTheRange(t *testing.T) {
	r := newRig(t, 0)
	for _, tt := range []struct {
		name      string
		addr, n   uint64
		want, end uint64 // pages, end exclusive
	}{
		{"nothing", 0, 0, 0, 0},
		{"one byte", 4095, 1, 0, 1},
		{"two bytes over a page border", 4095, 2, 0, 2},
		{"a page in the second word", 33 * 4096, 4096, 33, 34},
		{"a word", 32 * 4096, 32 * 4096, 32, 64},
		{"several words and a bit", 31 * 4096, 65*4096 + 1, 31, 97},
		{"beyond the end", r.g.End() &^ 0x3ffff, 1 << 40, (r.g.End() &^ 0x3ffff) / 4096, 320},
		{"far beyond the end", 1 << 50, 10, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.log.Harvest()
			if err := Guard(func() error { r.b.log.Mark(tt.addr, tt.n); return nil }); err != nil {
				t.Fatal(err)
			}
			got := r.log.Harvest()
			if len(got) != int(tt.end-tt.want) {
				t.Fatalf("marked %v", got)
			}
			for i, p := range got {
				if p != tt.want+uint64(i) {
					t.Fatalf("marked %v", got)
				}
			}
		})
	}
}
