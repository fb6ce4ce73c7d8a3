// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

var objectID = wire.UUID{1, 2, 3, 15: 16}

// exporter is an echo device that exports a file, a dma-buf for tests.
func exporter(t *testing.T) *echo {
	t.Helper()
	e := newEcho()
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { r.Close() })
	_, err = w.WriteString("object")
	must(t, errors.Join(err, w.Close()))
	e.Device.SharedObject = func(id wire.UUID) (int, error) {
		if id != objectID {
			return 0, errors.New("no such object")
		}
		return int(r.Fd()), nil
	}
	return e
}

func TestSharedObjectsAreFetchedFromTheDevice(t *testing.T) {
	e := exporter(t)
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	m, err := v.f.Ask(wire.GetSharedObject, objectID.AppendTo(nil))
	must(t, err)
	if len(m.FDs) != 1 || m.Size != 0 {
		t.Fatalf("got %d descriptors and %d bytes", len(m.FDs), m.Size)
	}
	f := os.NewFile(uintptr(m.TakeFD(0)), "object")
	defer f.Close()
	if p, err := io.ReadAll(f); err != nil || string(p) != "object" {
		t.Errorf("read %q, %v", p, err)
	}
	m.Close()
	m, err = v.f.Ask(wire.GetSharedObject, wire.UUID{9}.AppendTo(nil))
	must(t, err)
	defer m.Close()
	if len(m.FDs) != 0 || m.Size != 0 {
		t.Errorf("an unknown object: %d descriptors and %d bytes", len(m.FDs), m.Size)
	}
}

// background calls f in a goroutine. The function that it returns waits for the result.
func background[T any](f func() (T, error)) func() (T, error) {
	var v T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		v, err = f()
	}()
	return func() (T, error) {
		<-done
		return v, err
	}
}

func none(f func() error) func() (struct{}, error) {
	return func() (struct{}, error) { return struct{}{}, f() }
}

func TestRequestsOfTheDeviceReachTheFrontend(t *testing.T) {
	ev, err := vhosttest.NewEvent()
	must(t, err)
	defer ev.Close()
	for _, tt := range []struct {
		name    string
		call    func(b *vhostuser.Backend) error
		req     wire.BackendRequest
		payload []byte
		fds     int
	}{
		{"adding an object", func(b *vhostuser.Backend) error { return b.AddSharedObject(objectID) },
			wire.BackendSharedObjectAdd, objectID[:], 0},
		{"removing an object", func(b *vhostuser.Backend) error { return b.RemoveSharedObject(objectID) },
			wire.BackendSharedObjectRemove, objectID[:], 0},
		{"setting a host notifier", func(b *vhostuser.Backend) error {
			return b.SetHostNotifier(1, ev.FD, 8192, 4096)
		},
			wire.BackendVringHostNotifier,
			wire.VringArea{VringFD: wire.VringFD{Index: 1}, Size: 4096, Offset: 8192}.AppendTo(nil), 1},
		{"clearing a host notifier", func(b *vhostuser.Backend) error { return b.ClearHostNotifier(1) },
			wire.BackendVringHostNotifier, wire.VringArea{VringFD: wire.VringFD{Index: 1,
				NoFD: true}}.AppendTo(nil), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, without := range []wire.ProtocolFeatures{0, 1 << wire.ProtocolReplyAck} {
				e := exporter(t)
				v := newVM(t, serve(t, &e.Device), vhosttest.Options{Without: without})
				b := e.connection()
				for _, status := range []uint64{0, 1} {
					result := background(none(func() error { return tt.call(b) }))
					m, err := v.f.Channel.Next(10 * time.Second)
					must(t, err)
					if wire.BackendRequest(m.Request) != tt.req || !bytes.Equal(m.Payload, tt.payload) ||
						len(m.FDs) != tt.fds {
						t.Errorf("got %v with %x and %d descriptors", wire.BackendRequest(m.Request), m.Payload,
							len(m.FDs))
					}
					must(t, v.f.Channel.Ack(m, status))
					m.Close()
					if _, err := result(); (err == nil) != (status == 0 || without != 0) {
						t.Errorf("status %d: %v", status, err)
					}
				}
			}
		})
	}
}

func TestLookupOfASharedObject(t *testing.T) {
	e := exporter(t)
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{Without: 1 << wire.ProtocolReplyAck})
	b := e.connection()
	lookup := func(answer func(m *wire.Message) error) (*os.File, error) {
		t.Helper()
		result := background(func() (*os.File, error) { return b.LookupSharedObject(objectID) })
		m, err := v.f.Channel.Next(10 * time.Second)
		must(t, err)
		defer m.Close()
		must(t, answer(m))
		return result()
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	f, err := lookup(func(m *wire.Message) error { return v.f.Channel.Reply(m, 0, int(w.Fd())) })
	must(t, err)
	_, err = f.WriteString("x")
	must(t, errors.Join(err, f.Close(), w.Close()))
	if p, err := io.ReadAll(r); err != nil || string(p) != "x" {
		t.Errorf("through the descriptor came %q, %v", p, err)
	}
	if _, err := lookup(func(m *wire.Message) error { return v.f.Channel.Reply(m, 1) }); err == nil {
		t.Error("a refused lookup succeeded")
	}
	if _, err := lookup(func(m *wire.Message) error { return v.f.Channel.Reply(m, 0) }); err == nil {
		t.Error("a lookup without a descriptor succeeded")
	}
	// Surplus descriptors have to be closed: TestMain finds those that are not.
	if _, err := lookup(func(m *wire.Message) error {
		return v.f.Channel.Reply(m, 0, v.g.Blocks[0].FD, v.g.Blocks[1].FD)
	}); err == nil {
		t.Error("a lookup with two descriptors succeeded")
	}
}

func TestChannelThatLosesStepIsGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(v *vm, m *wire.Message)
	}{
		{"by the answer to another request", func(v *vm, m *wire.Message) {
			m.Request++
			must(v.t, v.f.Channel.Reply(m, 0))
		}},
		{"by hanging up", func(v *vm, m *wire.Message) { v.f.Channel.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := exporter(t)
			v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
			b := e.connection()
			result := background(none(func() error { return b.AddSharedObject(objectID) }))
			m, err := v.f.Channel.Next(10 * time.Second)
			must(t, err)
			tt.answer(v, m)
			if _, err := result(); err == nil {
				t.Error("the request succeeded")
			}
			if err := b.AddSharedObject(objectID); err == nil {
				t.Error("the channel is used on")
			}
			// A new channel works after an error on the old one.
			must(t, v.f.OpenChannel())
			result = background(none(func() error { return b.AddSharedObject(objectID) }))
			m, err = v.f.Channel.Next(10 * time.Second)
			must(t, err)
			must(t, v.f.Channel.Ack(m, 0))
			if _, err := result(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRequestsNeedWhatWasNegotiated(t *testing.T) {
	e := exporter(t)
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{
		Without: 1<<wire.ProtocolSharedObject | 1<<wire.ProtocolHostNotifier,
	})
	b := e.connection()
	for what, err := range map[string]error{
		"add": b.AddSharedObject(objectID), "remove": b.RemoveSharedObject(objectID),
		"set": b.SetHostNotifier(0, 0, 0, 4096), "clear": b.ClearHostNotifier(0),
	} {
		if !errors.Is(err, vhostuser.ErrNotNegotiated) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := b.LookupSharedObject(objectID); !errors.Is(err, vhostuser.ErrNotNegotiated) {
		t.Errorf("look up: %v", err)
	}
	v.f.Close()
	e = exporter(t)
	newVM(t, serve(t, &e.Device), vhosttest.Options{Without: 1 << wire.ProtocolBackendReq})
	if err := e.connection().AddSharedObject(objectID); err == nil {
		t.Error("a request without a channel succeeded")
	}
}

// The device must "not send any messages to the front-end" (vhost-user.rst, "Suspended
// device state").
func TestSuspendedDeviceSendsNothing(t *testing.T) {
	for name, stop := range map[string]func(v *vm) error{
		"its rings are stopped": func(v *vm) error { return v.f.Stop(v.queues...) },
		"it is reset":           func(v *vm) error { return v.f.Tell(wire.ResetDevice, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			e := exporter(t)
			v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
			v.start()
			must(t, stop(v))
			b := e.connection()
			b.ConfigChanged()
			if err := b.AddSharedObject(objectID); err == nil {
				t.Error("a request was sent")
			}
			if m, err := v.f.Channel.Next(50 * time.Millisecond); err == nil {
				t.Errorf("got %v", wire.BackendRequest(m.Request))
			}
			for _, q := range v.queues {
				q.Reset()
			}
			must(t, v.f.StartRings(v.queues...))
			m, err := v.f.Channel.Next(10 * time.Second)
			must(t, err)
			if wire.BackendRequest(m.Request) != wire.BackendConfigChange {
				t.Errorf("got %v", wire.BackendRequest(m.Request))
			}
			must(t, v.f.Channel.Ack(m, 0))
		})
	}
}
