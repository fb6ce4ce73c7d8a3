// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

const (
	accessPlatform = 1 << wire.FeatureAccessPlatform
	readWrite      = wire.IOTLBRead | wire.IOTLBWrite
)

// iommuVM returns a vm whose device is behind an IOMMU. All guest memory is mapped.
func iommuVM(t *testing.T, e *echo, sizes ...uint64) (*vm, *vhosttest.IOMMU) {
	t.Helper()
	e.Device.Features |= accessPlatform
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{}, sizes...)
	m := v.f.StartIOMMU(v.g)
	m.MapGuest()
	must(t, v.f.Start(v.g, virtioFeatures|accessPlatform, v.queues...))
	return v, m
}

// echoIOVA does what vm.echo does, with buffers at these IOVAs.
func (v *vm) echoIOVA(i int, text string, in, out uint64) error {
	v.t.Helper()
	q, n := v.queues[i], uint32(len(text))
	_, err := q.Add(vhosttest.Buffer{Addr: in, Len: n},
		vhosttest.Buffer{Addr: out, Len: n, Write: true})
	must(v.t, err)
	must(v.t, q.Kick.Raise())
	u, err := q.Wait(10 * time.Second)
	if err == nil && u.Len != n {
		err = errors.New("nothing was written")
	}
	return err
}

func TestBuffersAndRingsAreTranslated(t *testing.T) {
	e := newEcho()
	v, m := iommuVM(t, e)
	for i := range 2 {
		for range 20 {
			in, out := v.request("translated")
			must(t, v.echoIOVA(i, "translated", vhosttest.IOVA(in.Addr), vhosttest.IOVA(out.Addr)))
			if got := v.g.Read(out.Addr, 10); string(got) != "translated" {
				t.Fatalf("got %q", got)
			}
		}
	}
	before, faults := m.Misses()
	if before == 0 || len(faults) != 0 {
		t.Errorf("%d misses, faults %v", before, faults)
	}
	// The device does not ask again for a translation that it has.
	in, out := v.request("known")
	must(t, v.echoIOVA(0, "known", vhosttest.IOVA(in.Addr), vhosttest.IOVA(out.Addr)))
	must(t, v.echoIOVA(0, "known", vhosttest.IOVA(in.Addr), vhosttest.IOVA(out.Addr)))
	if after, _ := m.Misses(); after > before+2 {
		t.Errorf("%d misses for two pages", after-before)
	}
	must(t, v.f.Stop(v.queues...))
}

func TestScatteredBuffersAreOneToTheDevice(t *testing.T) {
	e := newEcho()
	v, m := iommuVM(t, e)
	in, out := v.g.Alloc(3*page), v.g.Alloc(3*page)
	const iova = 1 << 44
	for n, to := range []uint64{2, 0, 1} { // page n of the buffer is page `to` in memory
		m.Map(iova+uint64(n)*page, in+to*page, page, wire.IOTLBRead)
		m.Map(iova+uint64(n+4)*page, out+to*page, page, readWrite)
	}
	text := strings.Repeat("0123456789abcdef", 2*page/16)
	// The buffers begin in the middle of a page and extend over three.
	v.g.Write(in+2*page+100, []byte(text[:page-100]))
	v.g.Write(in, []byte(text[page-100:2*page-100]))
	v.g.Write(in+page, []byte(text[2*page-100:]))
	must(t, v.echoIOVA(0, text, iova+100, iova+4*page+100))
	got := string(v.g.Read(out+2*page+100, page-100)) + string(v.g.Read(out, page)) +
		string(v.g.Read(out+page, 100))
	if got != text {
		t.Error("the text is not what was sent")
	}
}

func TestInvalidTranslationsBreakTheQueue(t *testing.T) {
	for _, tt := range []struct {
		name string
		perm uint8 // access to the page; 0: it is not mapped
		out  bool  // whether it is the page of the writable buffer
	}{
		{"an address that is not mapped", 0, false},
		{"reading what may only be written", wire.IOTLBWrite, false},
		{"writing what may only be read", wire.IOTLBRead, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			v, m := iommuVM(t, e)
			m.Silent = tt.out
			in, out := v.request("x")
			bad := in.Addr
			if tt.out {
				bad = out.Addr
			}
			if tt.perm == 0 {
				must(t, m.Unmap(vhosttest.IOVA(bad), vhosttest.PageSize))
			} else {
				m.Map(vhosttest.IOVA(bad), bad, vhosttest.PageSize, tt.perm)
			}
			_, err := v.queues[0].Add(
				vhosttest.Buffer{Addr: vhosttest.IOVA(in.Addr), Len: 1},
				vhosttest.Buffer{Addr: vhosttest.IOVA(out.Addr), Len: 1, Write: true})
			must(t, err)
			must(t, v.queues[0].Kick.Raise())
			q := e.connection().Queue(0)
			eventually(t, "broken", func() bool { return !q.Running() })
			if v.queues[0].UsedIdx() != 0 {
				t.Error("the request was completed")
			}
			i, o := v.request("other")
			must(t, v.echoIOVA(1, "other", vhosttest.IOVA(i.Addr), vhosttest.IOVA(o.Addr)))
		})
	}
}

func TestNothingIsWrittenAfterAnInvalidation(t *testing.T) {
	e := newEcho()
	e.hold = true
	v, m := iommuVM(t, e)
	in, out := v.request("late")
	_, err := v.queues[0].Add(
		vhosttest.Buffer{Addr: vhosttest.IOVA(in.Addr), Len: in.Len},
		vhosttest.Buffer{Addr: vhosttest.IOVA(out.Addr), Len: out.Len, Write: true})
	must(t, err)
	must(t, v.queues[0].Kick.Raise())
	eventually(t, "held", func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(e.held) == 1 })
	c := e.takeHeld()[0]
	must(t, m.Unmap(vhosttest.IOVA(out.Addr), vhosttest.PageSize))
	if _, err := c.WriteAt([]byte("late"), 0); err == nil {
		t.Error("memory was written that the device may not reach any more")
	}
	// The same IOVA at another guest address is not the same memory either.
	must(t, m.Update(vhosttest.IOVA(out.Addr), v.g.User(in.Addr), vhosttest.PageSize, readWrite))
	if _, err := c.WriteAt([]byte("late"), 0); err == nil {
		t.Error("other memory was written")
	}
	if got := v.g.Read(out.Addr, 4); string(got) == "late" {
		t.Error("it was written in spite of the error")
	}
	must(t, m.Update(vhosttest.IOVA(out.Addr), v.g.User(out.Addr), vhosttest.PageSize, readWrite))
	if _, err := c.WriteAt([]byte("late"), 0); err != nil {
		t.Error(err)
	}
	must(t, e.connection().Queue(0).Push(c, 4))
}

func TestRingMovesWithItsTranslation(t *testing.T) {
	e := newEcho()
	v, m := iommuVM(t, e)
	q := v.queues[0]
	in, out := v.request("x")
	must(t, v.echoIOVA(0, "x", vhosttest.IOVA(in.Addr), vhosttest.IOVA(out.Addr)))
	iova := vhosttest.IOVA(q.UsedRing)
	must(t, m.Unmap(iova, page))
	before := v.g.Read(q.UsedRing, page)
	other := v.g.Alloc(page)
	v.g.Write(other, before)
	m.Map(iova, other, page, readWrite)
	in.Addr, out.Addr = vhosttest.IOVA(in.Addr), vhosttest.IOVA(out.Addr)
	_, err := q.Add(in, out)
	must(t, err)
	must(t, q.Kick.Raise())
	used := func() uint16 { return binary.LittleEndian.Uint16(v.g.Read(other+2, 2)) }
	eventually(t, "used at the new place", func() bool { return used() == 2 })
	if !slices.Equal(v.g.Read(q.UsedRing, page), before) {
		t.Error("the ring was written where it is no more")
	}
}

func TestIOMMUMigrationUnderInvalidations(t *testing.T) {
	e := newEcho()
	v, m := iommuVM(t, e, 2<<20, 1<<20)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		const text = "behind an IOMMU"
		in := v.g.Alloc(1)
		v.g.Write(in, []byte(text))
		area := v.g.Alloc(33 * vhosttest.PageSize)
		for n := uint64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := v.echoIOVA(0, text, vhosttest.IOVA(in),
				vhosttest.IOVA(area+(n%32+1)*vhosttest.PageSize-2)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	mig, err := v.f.StartMigration(v.g, v.queues...)
	must(t, err)
	for n := range 30 {
		switch n % 3 {
		case 0: // all translations, those of rings too
			must(t, m.Invalidate(0, 0))
		case 1:
			must(t, m.Invalidate(vhosttest.IOVA(v.queues[0].UsedRing), vhosttest.PageSize))
		case 2:
			must(t, mig.SwapLog())
		}
		mig.Round()
	}
	eventually(t, "traffic is logged", func() bool { return len(mig.Round()) > 2 })
	close(stop)
	wg.Wait()
	must(t, v.f.Stop(v.queues...))
	if missing := mig.Missing(); len(missing) != 0 {
		t.Errorf("pages not in the log: %#x", missing)
	}
	mig.Close()
}

func TestBadTranslationsAreRefused(t *testing.T) {
	e := newEcho()
	v, m := iommuVM(t, e)
	user := v.g.User(v.g.Blocks[0].Addr)
	send := func(msg wire.IOTLB) error {
		r, err := v.f.Ask(wire.IOTLBMsg, msg.AppendTo(nil))
		must(t, err)
		defer r.Close()
		status, err := wire.DecodeU64(r.Payload)
		must(t, err)
		if status != 0 {
			return &vhosttest.Refused{}
		}
		return nil
	}
	for _, tt := range []struct {
		name string
		msg  wire.IOTLB
	}{
		{"of no size", wire.IOTLB{UserAddr: user, Perm: 1, Type: wire.IOTLBUpdate}},
		{"that wraps", wire.IOTLB{IOVA: ^uint64(0), Size: 4096, UserAddr: user, Perm: 1,
			Type: wire.IOTLBUpdate}},
		{"outside the memory table", wire.IOTLB{Size: 4096, UserAddr: 16, Perm: 1,
			Type: wire.IOTLBUpdate}},
		{"with permissions that do not exist", wire.IOTLB{Size: 4096, UserAddr: user, Perm: 4,
			Type: wire.IOTLBUpdate}},
		{"of the backend's", wire.IOTLB{Size: 4096, UserAddr: user, Perm: 1, Type: wire.IOTLBMiss}},
		{"to remove a range that wraps", wire.IOTLB{IOVA: 4096, Size: ^uint64(0),
			Type: wire.IOTLBInvalidate}},
	} {
		if err := send(tt.msg); err == nil {
			t.Errorf("a translation %s was accepted", tt.name)
		}
	}
	_ = m
	v = newVM(t, serve(t, &newEcho().Device), vhosttest.Options{})
	if err := send(wire.IOTLB{Size: 4096, Type: wire.IOTLBInvalidate}); err == nil {
		t.Error("a translation was accepted without ACCESS_PLATFORM")
	}
}

func TestStopDoesNotWaitForATranslation(t *testing.T) {
	e := newEcho()
	e.Device.Features |= accessPlatform
	e.Device.Kick = func(q *vhostuser.Queue) {
		e.kick(q)
		e.record("kick of queue %d ends", q.Index())
	}
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	// Only the rings are mapped. Requests for other translations get no answer.
	hung := make(chan struct{})
	m := v.f.StartIOMMU(v.g)
	m.MapGuest()
	in, out := v.request("x")
	m.Hang(vhosttest.IOVA(in.Addr), hung)
	must(t, v.f.Start(v.g, virtioFeatures|accessPlatform, v.queues...))
	_, err := v.queues[0].Add(
		vhosttest.Buffer{Addr: vhosttest.IOVA(in.Addr), Len: 1},
		vhosttest.Buffer{Addr: vhosttest.IOVA(out.Addr), Len: 1, Write: true})
	must(t, err)
	must(t, v.queues[0].Kick.Raise())
	eventually(t, "asked", func() bool { return m.Hanging() })
	e.forget()
	base, err := v.f.StopRing(v.queues[0])
	must(t, err)
	if base != 0 {
		t.Errorf("base %d", base)
	}
	if !slices.Contains(e.recorded(), "kick of queue 0 ends") {
		t.Error("Kick was left behind")
	}
	close(hung)
}
