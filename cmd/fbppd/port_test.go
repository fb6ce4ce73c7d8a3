// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

func helloMessage(status protocol.Status, reason string) []byte {
	p := make([]byte, protocol.HeaderSize+protocol.HelloSize)
	h := protocol.Header{Type: protocol.MessageHello, Status: status, PageShift: 12}
	h.Encode(p)
	b := protocol.Hello{Reason: reason}
	b.Encode(p[protocol.HeaderSize:])
	return p
}

// stream is a connection over which the guest has sent some bytes, and reads nothing.
type stream struct {
	net.Conn
	*bytes.Reader
}

func (s stream) Read(p []byte) (int, error)      { return s.Reader.Read(p) }
func (s stream) Write(p []byte) (int, error)     { return len(p), nil }
func (s stream) SetReadDeadline(time.Time) error { return nil }
func (s stream) Close() error                    { return nil }

func servePortBytes(p []byte, dev *device.Device) error {
	return dev.ServePort(stream{Reader: bytes.NewReader(p)})
}

func TestRefusalsByThePort(t *testing.T) {
	good := helloMessage(protocol.StatusLockdown, "first")
	report := protocol.Header{Type: protocol.MessageReport, PageShift: 12}
	other := make([]byte, len(good))
	report.Encode(other)
	second := helloMessage(protocol.StatusFailed, "second")
	garbage := bytes.Repeat([]byte{0xa5}, protocol.HeaderSize+protocol.HelloSize)
	for _, tc := range []struct {
		name   string
		stream []byte
		reason string // of the driver; "" if there is no driver
		err    error
	}{
		{"nothing", nil, "", nil},
		{"one message", good, "first", nil},
		{"a later message replaces an earlier one", slices.Concat(good, second), "second", nil},
		{"a message that ends early", good[:len(good)-1], "", io.ErrUnexpectedEOF},
		{"a whole message, then half a one",
			slices.Concat(good, good[:40]), "first", io.ErrUnexpectedEOF},
		{"garbage", bytes.Repeat([]byte{0xa5}, 4096), "", protocol.ErrMalformed},
		{"garbage after a message",
			slices.Concat(good, garbage, second), "first", protocol.ErrMalformed},
		{"a message that is no hello", other, "", protocol.ErrMalformed},
		{"a hello that does not refuse", helloMessage(protocol.StatusOK, ""), "", protocol.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dev := device.New(device.Options{})
			if err := servePortBytes(tc.stream, dev); !errors.Is(err, tc.err) {
				t.Errorf("error %v, want %v", err, tc.err)
			}
			s := dev.Status()
			if tc.reason == "" {
				if s.Driver != nil {
					t.Errorf("driver %+v, want none", s.Driver)
				}
			} else if s.DriverState != "refuses" || s.Driver.Reason != tc.reason {
				t.Errorf("driver %q, %+v, want that it refuses because of %q",
					s.DriverState, s.Driver, tc.reason)
			}
		})
	}
}

func FuzzServePort(f *testing.F) {
	f.Add(helloMessage(protocol.StatusLockdown, "kernel lockdown is at integrity"))
	f.Add(helloMessage(protocol.StatusOK, ""))
	report := protocol.Header{
		Type: protocol.MessageReport, Flags: protocol.FlagLast, Generation: 7, PageShift: 12,
	}
	p := make([]byte, report.Size())
	report.Encode(p)
	f.Add(slices.Concat(helloMessage(protocol.StatusOK, ""), p, p[:40]))
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, policy := range []device.PortPolicy{device.PortRefuseOnly, device.PortReport} {
			dev := device.New(device.Options{Port: policy})
			_ = servePortBytes(stream, dev)
			if s := dev.Status(); s.DriverState == "ready" || len(s.Programs) > 0 {
				t.Fatalf("the port is closed, and its driver is %q: %+v", s.DriverState, s.Driver)
			}
		}
	})
}

// shortOfDescriptors is a listener whose first calls of Accept fail.
type shortOfDescriptors struct {
	net.Listener
	failures atomic.Int32
}

func (l *shortOfDescriptors) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: unix.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAgentSocketOutlivesConnectionsThatItCannotAccept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent")
	inner, err := unixsock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l := &shortOfDescriptors{Listener: inner}
	l.failures.Store(3)
	dev := device.New(device.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- servePort(ctx, l, dev, zap.NewNop()) }()
	changed := dev.Changed()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(helloMessage(protocol.StatusLockdown, "at last")); err != nil {
		t.Fatal(err)
	}
	<-changed
	if s := dev.Status(); s.Driver == nil || s.Driver.Reason != "at last" {
		t.Errorf("driver %+v", s.Driver)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestAgentSocketTakesTheNextConnectionAfterGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent")
	l, err := unixsock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	dev := device.New(device.Options{})
	served := make(chan error, 1)
	go func() { served <- servePort(t.Context(), l, dev, zap.NewNop()) }()
	connect := func(stream []byte) net.Conn {
		conn, err := net.Dial("unix", path)
		if err == nil {
			_, err = conn.Write(stream)
		}
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	bad := connect([]byte(strings.Repeat("x", 192)))
	defer bad.Close()
	changed := dev.Changed()
	// The first connection is still open at this end.
	good := connect(helloMessage(protocol.StatusLockdown, "second"))
	defer good.Close()
	<-changed
	if s := dev.Status(); s.DriverState != "refuses" || s.Driver.Reason != "second" {
		t.Errorf("driver %q, %+v", s.DriverState, s.Driver)
	}
	if _, err := io.Copy(io.Discard, bad); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the connection with garbage ended with %v", err)
	}
	l.Close()
	good.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v", err)
	}
}
