// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

const inband = 1 << wire.ProtocolInbandNotify

// inbandVM returns a vm that negotiated in-band notifications. Its queue 0 has
// descriptors for notifications nevertheless.
func inbandVM(t *testing.T, e *echo) *vm {
	t.Helper()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{Extra: inband})
	must(t, v.f.Start(v.g, virtioFeatures, v.queues[0]))
	return v
}

// messagesVM returns a vm without descriptors for notifications. Its queue is started by
// the first kick.
func messagesVM(t *testing.T, e *echo) (*vm, *vhosttest.Queue) {
	t.Helper()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{Extra: inband, NoCall: true})
	must(t, v.f.SetFeatures(virtioFeatures))
	must(t, v.f.SetMemory(v.g))
	q := v.queues[1]
	i := uint32(q.Index)
	must(t, v.f.Tell(wire.SetVringNum, wire.VringState{Index: i, Num: uint32(q.Size)}.AppendTo(nil)))
	must(t, v.f.Tell(wire.SetVringBase, wire.VringState{Index: i}.AppendTo(nil)))
	must(t, v.f.SetAddr(q))
	must(t, v.f.Enable(q, true))
	return v, q
}

func kickMessage(q *vhosttest.Queue) []byte {
	return wire.VringState{Index: uint32(q.Index)}.AppendTo(nil)
}

// nextCall waits for a VRING_CALL of queue q, and passes it to the driver.
func (v *vm) nextCall(q *vhosttest.Queue) {
	v.t.Helper()
	m, err := v.f.Channel.Next(10 * time.Second)
	must(v.t, err)
	s, err := wire.DecodeVringState(m.Payload)
	must(v.t, err)
	if wire.BackendRequest(m.Request) != wire.BackendVringCall ||
		s != (wire.VringState{Index: uint32(q.Index)}) || !m.NeedReply() {
		v.t.Fatalf("got %v %v", wire.BackendRequest(m.Request), s)
	}
	must(v.t, v.f.Channel.Ack(m, 0))
	m.Close()
	must(v.t, q.Call.Raise())
}

func TestInbandNotificationsReplaceDescriptors(t *testing.T) {
	e := newEcho()
	v, q := messagesVM(t, e)
	for n := range 20 {
		in, out := v.request("in band")
		_, err := q.Add(in, out)
		must(t, err)
		must(t, v.f.Confirm(wire.VringKick, kickMessage(q)))
		if n == 0 {
			v.nextCall(q) // the start of the ring sends one
		}
		for {
			if u, ok := q.Poll(); ok {
				if u.Len != out.Len || string(v.g.Read(out.Addr, uint64(out.Len))) != "in band" {
					t.Fatalf("answer of %d bytes", u.Len)
				}
				break
			}
			v.nextCall(q)
		}
	}
	// A stopped ring notifies nobody, and starts again with the next kick.
	base, err := v.f.StopRing(q)
	must(t, err)
	if base != 20 {
		t.Errorf("base %d", base)
	}
	must(t, v.f.Tell(wire.SetVringBase, wire.VringState{Index: 1, Num: uint32(base)}.AppendTo(nil)))
	must(t, v.f.SetAddr(q))
	in, out := v.request("again")
	_, err = q.Add(in, out)
	must(t, err)
	must(t, v.f.Confirm(wire.VringKick, kickMessage(q)))
	for q.Outstanding() > 0 {
		v.nextCall(q)
		q.Poll()
	}
}

func TestBrokenRingIsToldInband(t *testing.T) {
	e := newEcho()
	v, q := messagesVM(t, e)
	q.PutAvail(99)
	must(t, v.f.Confirm(wire.VringKick, kickMessage(q)))
	for {
		m, err := v.f.Channel.Next(10 * time.Second)
		must(t, err)
		must(t, v.f.Channel.Ack(m, 0))
		if wire.BackendRequest(m.Request) == wire.BackendVringErr {
			break
		}
	}
}

func TestDescriptorsArePreferredToMessages(t *testing.T) {
	e := newEcho()
	v := inbandVM(t, e)
	v.echo(0, "by descriptors")
	// The queue has a descriptor for kicks: the message is superfluous but harmless.
	must(t, v.f.Confirm(wire.VringKick, kickMessage(v.queues[0])))
	if m, err := v.f.Channel.Next(50 * time.Millisecond); err == nil {
		t.Errorf("a notification in band: %v", m.Header)
	}
}

func TestInbandNeedsItsFeatureAndReservedBits(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	var refused *vhosttest.Refused
	if err := v.f.Confirm(wire.VringKick, kickMessage(v.queues[0])); !errors.As(err, &refused) {
		t.Errorf("without the feature: %v", err)
	}
	v = inbandVM(t, newEcho())
	if err := v.f.Confirm(wire.VringKick, wire.VringState{Num: 1}.AppendTo(nil)); !errors.As(err,
		&refused) {
		t.Errorf("with a reserved field: %v", err)
	}
	if err := v.f.Confirm(wire.VringKick, kickMessage(v.queues[1])); !errors.As(err, &refused) {
		t.Errorf("of a ring without an address: %v", err)
	}
	v.echo(0, "goes on")
}

func TestInbandWithoutItsConditionsEndsTheConnection(t *testing.T) {
	for _, missing := range []wire.ProtocolFeatures{1 << wire.ProtocolBackendReq,
		1 << wire.ProtocolReplyAck} {
		t.Run(missing.String(), func(t *testing.T) {
			e := newEcho()
			f, err := vhosttest.Dial(serve(t, &e.Device))
			must(t, err)
			defer f.Close()
			all := wire.ProtocolFeatures(inband | 1<<wire.ProtocolBackendReq | 1<<wire.ProtocolReplyAck)
			must(t, f.Send(wire.SetProtocolFeatures, 0, wire.U64(all&^missing).AppendTo(nil)))
			if _, err := f.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("receive: %v", err)
			}
		})
	}
}
