// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// serveLogged serves dev until the test ends, or until stop is called, and
// returns what it logs.
func serveLogged(t *testing.T, dev *vhostuser.Device) (path string, logs *observer.ObservedLogs,
	stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	l, err := vhostuser.Listen(path)
	must(t, err)
	core, logs := observer.New(zap.InfoLevel)
	s, err := vhostuser.NewServer(dev, zap.New(core))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v", err)
		}
		must(t, l.Close())
	}
	t.Cleanup(stop)
	return path, logs, stop
}

// turnedAway fails the test unless the backend hangs up on a new connection.
func turnedAway(t *testing.T, path string) {
	t.Helper()
	f, err := vhosttest.Dial(path)
	must(t, err)
	defer f.Close()
	if _, err := f.Recv(); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a second connection: %v, want it closed", err)
	}
}

// holdUp makes a write to the config space block the message goroutine until goOn is
// called. busy makes such a write.
func holdUp(e *echo) (busy func(v *vm), goOn func()) {
	hold, held := make(chan struct{}), make(chan struct{})
	e.Device.WriteConfig = func([]byte, uint32) error {
		close(held)
		<-hold
		return nil
	}
	busy = func(v *vm) {
		must(v.t, v.f.Send(wire.SetConfig, 0, wire.Config{Data: []byte{1}}.AppendTo(nil)))
		<-held
	}
	return busy, sync.OnceFunc(func() { close(hold) })
}

func TestSecondConnectionIsTurnedAway(t *testing.T) {
	e := newEcho()
	path, logs, _ := serveLogged(t, &e.Device)
	v := newVM(t, path, vhosttest.Options{})
	v.start()
	for range 20 {
		turnedAway(t, path)
		v.echo(0, "the first frontend's session is untouched")
	}
	if n := slices.Compact(e.recorded()); slices.Contains(n, "disconnected") {
		t.Errorf("recorded %q", n)
	}
	lines := logs.FilterMessageSnippet("connection refused").All()
	if len(lines) != 1 {
		t.Fatalf("%d lines about 20 refusals, want 1", len(lines))
	}
	pid := int32(os.Getpid())
	if f := lines[0].ContextMap(); f["pid"] != pid || f["served_pid"] != pid {
		t.Errorf("line %v", f)
	}
	must(t, v.f.Stop(v.queues...))
	v.f.Close()
	v.connect(path, vhosttest.Options{}) // the backend accepts the next connection
}

// A frontend crashed and connects again before the backend has noticed the crash.
func TestConnectionAfterAHangUpWaitsForItsTurn(t *testing.T) {
	e := newEcho()
	busy, goOn := holdUp(e)
	path, logs, _ := serveLogged(t, &e.Device)
	t.Cleanup(goOn)
	first := newVM(t, path, vhosttest.Options{})
	first.start()
	busy(first)
	turnedAway(t, path) // the first connection is still open
	first.f.Close()
	// The backend notices the hang-up when WriteConfig returns.
	second, err := vhosttest.Dial(path)
	must(t, err)
	defer second.Close()
	second.Timeout = 50 * time.Millisecond
	if _, err := second.Recv(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the next frontend: %v, want it to wait", err)
	}
	goOn()
	second.Timeout = 10 * time.Second
	must(t, second.Realize(vhosttest.Options{}))
	if n := logs.FilterMessageSnippet("connection refused").Len(); n != 1 {
		t.Errorf("%d refusals", n)
	}
}

// A frontend that reconnects again and again, as QEMU does with reconnect-ms, is never
// refused because its own previous connection is still open.
func TestReconnectingFrontendIsNeverTurnedAway(t *testing.T) {
	e := newEcho()
	path, logs, _ := serveLogged(t, &e.Device)
	for range 200 {
		f, err := vhosttest.Dial(path)
		must(t, err)
		must(t, f.Realize(vhosttest.Options{}))
		f.Close()
	}
	if n := logs.FilterMessageSnippet("connection refused").Len(); n != 0 {
		t.Errorf("%d refusals", n)
	}
}

func TestServeEndsWhileAConnectionWaits(t *testing.T) {
	e := newEcho()
	busy, goOn := holdUp(e)
	path, _, stop := serveLogged(t, &e.Device)
	t.Cleanup(goOn)
	first := newVM(t, path, vhosttest.Options{})
	busy(first)
	first.f.Close()
	second, err := vhosttest.Dial(path)
	must(t, err)
	defer second.Close()
	time.AfterFunc(20*time.Millisecond, goOn)
	stop()
	if _, err := second.Recv(); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the connection that waited: %v, want it closed", err)
	}
}
