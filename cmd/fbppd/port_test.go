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

func TestReadRefusals(t *testing.T) {
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
			if err := readRefusals(bytes.NewReader(tc.stream), dev); !errors.Is(err, tc.err) {
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

func FuzzReadRefusals(f *testing.F) {
	f.Add(helloMessage(protocol.StatusLockdown, "kernel lockdown is at integrity"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		dev := device.New(device.Options{})
		_ = readRefusals(bytes.NewReader(stream), dev)
		if s := dev.Status(); s.DriverState == "ready" {
			t.Fatalf("the serial port made a driver ready: %+v", s.Driver)
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
	if n, err := bad.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the connection with garbage is open: %d, %v", n, err)
	}
	l.Close()
	good.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v", err)
	}
}
