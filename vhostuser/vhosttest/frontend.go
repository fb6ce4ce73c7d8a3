// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Frontend is the frontend's end of a connection. Single requests may be sent
// from several goroutines; sequences of them, as Start, are not safe for
// concurrent use. Queues belong to one goroutine each, but not to that of the
// Frontend.
type Frontend struct {
	// Offered and Protocol are what the backend offers; Features and
	// Negotiated what was agreed on.
	Offered, Features    wire.Features
	Protocol, Negotiated wire.ProtocolFeatures
	// AckAll asks for an acknowledgement of every request, if REPLY_ACK was
	// negotiated, and not only of those for which QEMU asks.
	AckAll bool
	// Timeout bounds each wait for the backend.
	Timeout time.Duration
	// Channel is the backend's channel, once Realize has made it.
	Channel *Channel

	conn   *wire.Conn
	mu     sync.Mutex // held from a question to its answer
	logAll bool
	iommu  *IOMMU // nil: addresses are not translated
}

// Dial connects to the backend that listens at path.
func Dial(path string) (*Frontend, error) {
	sock, err := socket.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, "vhost-user frontend", nil)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	if _, err := sock.Connect(context.Background(), &unix.SockaddrUnix{Name: path}); err != nil {
		_ = sock.Close()
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return New(wire.NewConn(sock)), nil
}

// New makes a Frontend that owns conn.
func New(conn *wire.Conn) *Frontend {
	return &Frontend{conn: conn, Timeout: 10 * time.Second}
}

// Close closes the connection.
func (f *Frontend) Close() {
	if f.Channel != nil {
		f.Channel.Close()
	}
	_ = f.conn.Close()
}

// Refused is a request that the backend acknowledged with an error.
type Refused struct {
	Request wire.Request
	Status  wire.U64
}

// Error implements error.
func (e *Refused) Error() string {
	return fmt.Sprintf("backend refused %v: %v", e.Request, e.Status)
}

func (f *Frontend) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), f.Timeout)
}

// Send sends a request and waits for nothing.
func (f *Frontend) Send(req wire.Request, flags uint32, payload []byte, fds ...int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.send(req, flags, payload, fds...)
}

func (f *Frontend) send(req wire.Request, flags uint32, payload []byte, fds ...int) error {
	ctx, cancel := f.context()
	defer cancel()
	return f.conn.Send(ctx, wire.Header{Request: uint32(req), Flags: wire.Version | flags}, payload,
		fds...)
}

// SendRaw sends bytes as they are, with descriptors.
func (f *Frontend) SendRaw(b []byte, fds ...int) error {
	ctx, cancel := f.context()
	defer cancel()
	return f.conn.SendRaw(ctx, b, fds...)
}

// Recv waits for a message. The caller closes it.
func (f *Frontend) Recv() (*wire.Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.recv()
}

// recv copies the payload, which the next message overwrites.
func (f *Frontend) recv() (*wire.Message, error) {
	ctx, cancel := f.context()
	defer cancel()
	m, err := f.conn.Recv(ctx)
	if err == nil {
		m.Payload = bytes.Clone(m.Payload)
	}
	return m, err
}

// Ask sends a request and waits for the reply that belongs to it. The caller
// closes the reply.
func (f *Frontend) Ask(req wire.Request, payload []byte, fds ...int) (*wire.Message, error) {
	return f.ask(req, 0, payload, fds...)
}

func (f *Frontend) ask(req wire.Request, flags uint32, payload []byte, fds ...int) (*wire.Message,
	error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.send(req, flags, payload, fds...); err != nil {
		return nil, fmt.Errorf("ask %v: %w", req, err)
	}
	m, err := f.recv()
	if err != nil {
		return nil, fmt.Errorf("ask %v: %w", req, err)
	}
	if wire.Request(m.Request) != req || m.Flags != wire.ReplyFlags {
		m.Close()
		return nil, fmt.Errorf("ask %v: got %v", req, m.Header)
	}
	return m, nil
}

// AskU64 asks for a number.
func (f *Frontend) AskU64(req wire.Request) (uint64, error) {
	m, err := f.Ask(req, nil)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	v, err := wire.DecodeU64(m.Payload)
	return uint64(v), err
}

// Confirm sends a request and waits for its acknowledgement. REPLY_ACK must
// have been negotiated. A refusal is a *Refused.
func (f *Frontend) Confirm(req wire.Request, payload []byte, fds ...int) error {
	m, err := f.ask(req, wire.FlagNeedReply, payload, fds...)
	if err != nil {
		return err
	}
	defer m.Close()
	status, err := wire.DecodeU64(m.Payload)
	switch {
	case err != nil:
		return err
	case status != 0:
		return &Refused{Request: req, Status: status}
	}
	return nil
}

// Tell sends a request that has no reply of its own, and waits for its
// acknowledgement where AckAll says so.
func (f *Frontend) Tell(req wire.Request, payload []byte, fds ...int) error {
	if f.AckAll && f.Negotiated.Has(wire.ProtocolReplyAck) {
		return f.Confirm(req, payload, fds...)
	}
	if err := f.Send(req, 0, payload, fds...); err != nil {
		return fmt.Errorf("tell %v: %w", req, err)
	}
	return nil
}

// TellSync is Tell for the requests that QEMU waits for: it asks for an
// acknowledgement, or for the features if it cannot.
func (f *Frontend) TellSync(req wire.Request, payload []byte, fds ...int) error {
	if f.Negotiated.Has(wire.ProtocolReplyAck) {
		return f.Confirm(req, payload, fds...)
	}
	if err := f.Tell(req, payload, fds...); err != nil {
		return err
	}
	return f.Barrier()
}

// Barrier waits until the backend has handled all requests.
func (f *Frontend) Barrier() error {
	_, err := f.AskU64(wire.GetFeatures)
	return err
}
