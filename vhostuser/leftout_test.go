// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Requests that the package documentation calls left out are refused, and the log
// names them.
func TestLeftOutRequestsAreRefusedByName(t *testing.T) {
	core, logged := observer.New(zap.WarnLevel)
	e := newEcho()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := vhostuser.Listen(path)
	must(t, err)
	s, err := vhostuser.NewServer(&e.Device, zap.New(core))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	defer func() { cancel(); <-done; must(t, l.Close()) }()
	v := newVM(t, path, vhosttest.Options{})
	v.start()
	for _, req := range []wire.Request{
		wire.SendRARP, wire.NetSetMTU, wire.CreateCryptoSession, wire.CloseCryptoSession,
		wire.GPUSetSocket, wire.SetVringEndian,
	} {
		var refused *vhosttest.Refused
		if err := v.f.Confirm(req, wire.U64(0).AppendTo(nil)); !errors.As(err, &refused) {
			t.Errorf("%v: %v", req, err)
		}
		named := logged.FilterField(zap.Stringer("request", req)).Len()
		if named == 0 {
			t.Errorf("the log does not name %v", req)
		}
	}
	v.echo(0, "goes on")
}

func TestLeftOutFeaturesAreNotOffered(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	for _, bit := range []uint{
		wire.ProtocolRARP, wire.ProtocolMTU, wire.ProtocolCrossEndian, wire.ProtocolCryptoSession,
		wire.ProtocolXenMMap,
		wire.ProtocolDeviceState, wire.ProtocolSharedObject, // this device does not use them
		20, 21, // defined after QEMU 10.0
	} {
		set := wire.ProtocolFeatures(1) << bit
		if v.f.Protocol.Has(bit) {
			t.Errorf("%v is offered", set)
		}
		var refused *vhosttest.Refused
		if err := v.f.Confirm(wire.SetProtocolFeatures,
			wire.U64(set|1<<wire.ProtocolReplyAck).AppendTo(nil)); !errors.As(err, &refused) {
			t.Errorf("%v was accepted: %v", set, err)
		}
	}
}

func TestConfigOffsetsAndSizes(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	size := uint32(len(e.config))
	var refused *vhosttest.Refused
	for _, tt := range []struct {
		name   string
		off, n uint32
		ok     bool
	}{
		{"nothing", 0, 0, true},
		{"all of it", 0, size, true},
		{"its last byte", size - 1, 1, true},
		{"nothing at its end", size, 0, true},
		{"a byte after its end", size, 1, false},
		{"more than there is", 0, size + 1, false},
		{"an offset that would wrap", ^uint32(0), 2, false},
		{"as much as a message carries", 0, wire.MaxConfigSize, false},
	} {
		got, err := v.f.GetConfig(tt.off, tt.n) // it checks the answer's offset and size
		if (err == nil) != tt.ok || err != nil && !errors.As(err, &refused) {
			t.Errorf("%s: read %d bytes, %v", tt.name, len(got), err)
		}
		if err := v.f.SetConfig(tt.off, make([]byte, tt.n)); (err == nil) != tt.ok {
			t.Errorf("%s: write: %v", tt.name, err)
		}
		e.mu.Lock()
		e.config = []byte("configuration of the echo device")
		e.mu.Unlock()
	}
}

func TestResetReturnsToTheInitialState(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	v.start()
	v.echo(0, "before")
	must(t, v.f.Tell(wire.ResetDevice, nil))
	if s, err := v.f.AskU64(wire.GetStatus); err != nil || s != 0 {
		t.Errorf("status %d, %v", s, err)
	}
	q := e.connection().Queue(0)
	if q.Running() {
		t.Error("the queue runs")
	}
	// The specification says "disable all rings": they do not run after a start alone.
	for _, q := range v.queues {
		q.Reset()
	}
	must(t, v.f.StartRing(v.queues[0]))
	must(t, v.f.Barrier())
	if q.Running() {
		t.Error("the queue is enabled")
	}
	must(t, v.f.Enable(v.queues[0], true))
	v.echo(0, "after")
}
