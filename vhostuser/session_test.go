// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

func TestSessions(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		memSlots := wire.ProtocolFeatures(1 << wire.ProtocolConfigureMemSlots)
		ack := wire.ProtocolFeatures(1 << wire.ProtocolReplyAck)
		for _, tt := range []struct {
			name    string
			without wire.ProtocolFeatures
			ackAll  bool
		}{
			{"with everything negotiated and acknowledged", 0, true},
			{"acknowledging what QEMU wants acknowledged", 0, false},
			{"with a memory table", memSlots, true},
			{"without REPLY_ACK", ack, false},
			{"with no optional protocol feature", ^wire.ProtocolFeatures(0), false},
		} {
			t.Run(tt.name, func(t *testing.T) {
				e := newEcho()
				v := newVM(t, serve(t, &e.Device), vhosttest.Options{Without: tt.without}).speak(features)
				v.f.AckAll = tt.ackAll
				v.start()
				for i := range 2 {
					for range 40 { // several times around a ring of 8
						v.echo(i, "hello")
					}
				}
				must(t, v.f.Stop(v.queues...))
				v.start2(t)
				v.echo(0, "and again")
				v.f.Close()
				eventually(t, "disconnected", func() bool {
					return slices.Contains(e.recorded(), "disconnected")
				})
				if err := e.lastError(); err != nil {
					t.Errorf("disconnected because of %v", err)
				}
			})
		}
	})
}

// start2 starts the rings again. It does not send the memory table: the backend still
// has it.
func (v *vm) start2(t *testing.T) {
	t.Helper()
	for _, q := range v.queues {
		must(t, v.f.StartRing(q))
		must(t, v.f.Enable(q, true))
	}
}

func TestDeviceHearsOfEverythingInOrder(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	must(t, v.f.Stop(v.queues...))
	must(t, v.f.Tell(wire.ResetDevice, nil))
	v.f.Close()
	eventually(t, "disconnected", func() bool { return slices.Contains(e.recorded(), "disconnected") })
	want := []string{
		"connected", "features 0x110000000", "memory 1", "memory 2",
		"queue 0 started", "queue 1 started", "queue 0 stopping", "queue 1 stopping",
		"reset", "disconnected",
	}
	if got := e.recorded(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestConfigSpace(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	got, err := v.f.GetConfig(0, 13)
	must(t, err)
	if string(got) != "configuration" {
		t.Errorf("got %q", got)
	}
	must(t, v.f.SetConfig(0, []byte("C")))
	if got, err = v.f.GetConfig(0, 4); err != nil || string(got) != "Conf" {
		t.Errorf("after the write: %q, %v", got, err)
	}
	var refused *vhosttest.Refused
	if _, err := v.f.GetConfig(30, 4); !errors.As(err, &refused) {
		t.Errorf("read past the end: %v", err)
	}
	if err := v.f.SetConfig(30, []byte("long")); !errors.As(err, &refused) {
		t.Errorf("write past the end: %v", err)
	}
	if err := v.f.Tell(wire.SetConfig, wire.Config{Flags: wire.ConfigMigration,
		Data: []byte("x")}.AppendTo(nil)); !errors.As(err, &refused) {
		t.Errorf("write for migration: %v", err)
	}
}

func TestConfigChangeReachesTheFrontend(t *testing.T) {
	for _, tt := range []struct {
		name    string
		without wire.ProtocolFeatures
		ack     bool
	}{
		{"with acknowledgement", 0, true},
		{"without acknowledgement", 1 << wire.ProtocolReplyAck, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			v := newVM(t, serve(t, &e.Device), vhosttest.Options{Without: tt.without})
			for range 3 {
				e.connection().ConfigChanged()
				m, err := v.f.Channel.Next(v.f.Timeout)
				must(t, err)
				if wire.BackendRequest(m.Request) != wire.BackendConfigChange || m.Size != 0 ||
					m.NeedReply() != tt.ack {
					t.Errorf("got %v %v", wire.BackendRequest(m.Request), m.Header)
				}
				must(t, v.f.Channel.Ack(m, 0))
			}
		})
	}
	t.Run("without a channel it is nothing", func(t *testing.T) {
		e := newEcho()
		newVM(t, serve(t, &e.Device), vhosttest.Options{Without: 1 << wire.ProtocolBackendReq})
		e.connection().ConfigChanged()
	})
}

func TestReconnectContinuesWithoutGuestReset(t *testing.T) {
	e := newEcho()
	path := serve(t, &e.Device)
	v := newVM(t, path, vhosttest.Options{})
	v.start()
	for range 11 {
		v.echo(0, "before")
	}
	// When the frontend disconnects, outstanding requests are returned to the device.
	e.mu.Lock()
	e.hold = true
	e.mu.Unlock()
	in, out := v.request("pending")
	_, err := v.queues[0].Add(in, out)
	must(t, err)
	must(t, v.queues[0].Kick.Raise())
	eventually(t, "chain held",
		func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(e.held) == 1 })
	stale := e.takeHeld()[0]
	old := e.connection().Queue(0)
	v.f.Close()
	eventually(t, "disconnected", func() bool { return slices.Contains(e.recorded(), "disconnected") })

	if _, err := stale.WriteAt([]byte("late"), 0); err == nil ||
		!strings.Contains(err.Error(), "stopped") {
		t.Errorf("write after the end: %v", err)
	}
	if err := old.Push(stale, 4); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("push after the end: %v", err)
	}
	e.mu.Lock()
	e.hold = false
	e.mu.Unlock()
	v.connect(path, vhosttest.Options{})
	for _, q := range v.queues {
		q.Resume()
	}
	v.start()
	v.answer(0, out, "pending")
	v.echo(0, "after")
	v.echo(1, "after")
}
