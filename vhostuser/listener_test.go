// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

func TestListenMakesAPrivateSocketAndRemovesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := vhostuser.Listen(path)
	must(t, err)
	st, err := os.Lstat(path)
	must(t, err)
	if st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	must(t, l.Close())
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

func TestListenReplacesOnlyAStaleSocket(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: stale}))
	must(t, unix.Close(fd))
	l, err := vhostuser.Listen(stale)
	must(t, err)

	if _, err := vhostuser.Listen(stale); err == nil ||
		!strings.Contains(err.Error(), "somebody listens") {
		t.Errorf("second listener: %v", err)
	}
	// Another process has made a socket at our path since: it must not be removed.
	must(t, os.Remove(stale))
	other, err := vhostuser.Listen(stale)
	must(t, err)
	must(t, l.Close())
	if _, err := os.Lstat(stale); err != nil {
		t.Errorf("the other listener's socket is gone: %v", err)
	}
	must(t, other.Close())

	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, []byte("precious"), 0o600))
	if _, err := vhostuser.Listen(file); err == nil {
		t.Error("a file was replaced")
	}
	if p, err := os.ReadFile(file); err != nil || string(p) != "precious" {
		t.Errorf("file is %q, %v", p, err)
	}
	if _, err := vhostuser.Listen(filepath.Join(dir, "missing", "socket")); err == nil {
		t.Error("listening in a missing folder")
	}
}

func TestInheritedConnectionIsServedOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		last func(f *vhosttest.Frontend)
		ok   bool
	}{
		{"closed in good order", func(*vhosttest.Frontend) {}, true},
		{"closed in the middle of a message", func(f *vhosttest.Frontend) { _ = f.SendRaw([]byte{1}) },
			false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			must(t, err)
			l, err := vhostuser.FromFD(fds[1])
			must(t, err)
			e := newEcho()
			s, err := vhostuser.NewServer(&e.Device, nil)
			must(t, err)
			done := make(chan error, 1)
			go func() { done <- s.Serve(t.Context(), l) }()
			conn, err := wire.NewConnFD(fds[0], "frontend")
			must(t, err)
			f := vhosttest.New(conn)
			must(t, f.Realize(vhosttest.Options{}))
			tt.last(f)
			f.Close()
			if err := <-done; (err == nil) != tt.ok {
				t.Errorf("Serve returned %v", err)
			}
			must(t, l.Close())
		})
	}
}

func TestInheritedConnectionThatIsNeverServedIsClosed(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(fds[0])
	l, err := vhostuser.FromFD(fds[1])
	must(t, err)
	must(t, l.Close())
}

func TestInheritedListenerIsServedForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	must(t, unix.Listen(fd, 1))
	l, err := vhostuser.FromFD(fd)
	must(t, err)
	e := newEcho()
	s, err := vhostuser.NewServer(&e.Device, nil)
	must(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	for range 2 {
		f, err := vhosttest.Dial(path)
		must(t, err)
		must(t, f.Realize(vhosttest.Options{}))
		f.Close()
	}
	stop := errors.New("enough")
	cancel(stop)
	if err := <-done; !errors.Is(err, stop) {
		t.Errorf("Serve returned %v", err)
	}
	must(t, l.Close())
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the inherited socket file was removed: %v", err)
	}
}

func TestOnlySocketsCanBeInherited(t *testing.T) {
	e, err := vhosttest.NewEvent()
	must(t, err)
	defer e.Close()
	fd, err := unix.Dup(e.FD)
	must(t, err)
	if _, err := vhostuser.FromFD(fd); err == nil {
		t.Error("an eventfd was accepted")
	}
}

func TestServeEndsAtOnceWithItsContext(t *testing.T) {
	dev := newEcho()
	l, err := vhostuser.Listen(filepath.Join(t.TempDir(), "socket"))
	must(t, err)
	defer l.Close()
	s, err := vhostuser.NewServer(&dev.Device, nil)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx, l); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}
}

func TestDeviceMayEndTheConnection(t *testing.T) {
	e := newEcho()
	path := serve(t, &e.Device)
	v := newVM(t, path, vhosttest.Options{})
	v.start()
	b := e.connection()
	b.Close()
	if _, err := v.f.Recv(); err == nil {
		t.Error("the connection is open")
	}
	eventually(t, "disconnected", func() bool { return e.lastError() != nil })
	v.f.Close()
	m := b.Memory()
	if n := len(m.Regions()); n != 0 {
		t.Errorf("an ended connection has %d regions", n)
	}
	m.Release()
	v.connect(path, vhosttest.Options{})
}

func TestServerRefusesDevicesItCannotServe(t *testing.T) {
	handle := func([]byte, []*os.File) ([]byte, []int, error) { return nil, nil, nil }
	for _, tt := range []struct {
		name   string
		change func(d *vhostuser.Device)
	}{
		{"without Kick", func(d *vhostuser.Device) { d.Kick = nil }},
		{"without queues", func(d *vhostuser.Device) { d.NumQueues = 0 }},
		{"with too many queues", func(d *vhostuser.Device) { d.NumQueues = 129 }},
		{"with an odd queue size", func(d *vhostuser.Device) { d.MaxQueueSize = 100 }},
		{"with a queue size that is too large", func(d *vhostuser.Device) { d.MaxQueueSize = 1 << 16 }},
		{"with a feature of the library",
			func(d *vhostuser.Device) { d.Features = 1 << wire.FeatureLogAll }},
		{"that saves what it cannot load",
			func(d *vhostuser.Device) { d.SaveState = func(io.Writer) error { return nil } }},
		{"with an extension that does nothing", func(d *vhostuser.Device) {
			d.Extensions = []vhostuser.Extension{{ProtocolFeature: 48, Request: 1000}}
		}},
		{"with an extension of a known request", func(d *vhostuser.Device) {
			d.Extensions = []vhostuser.Extension{{ProtocolFeature: 48, Request: uint32(wire.GetFeatures),
				Handle: handle}}
		}},
		{"with an extension under a known feature", func(d *vhostuser.Device) {
			d.Extensions = []vhostuser.Extension{{ProtocolFeature: wire.ProtocolMQ, Request: 1000,
				Handle: handle}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			tt.change(&e.Device)
			if _, err := vhostuser.NewServer(&e.Device, nil); err == nil {
				t.Error("accepted")
			}
		})
	}
}
