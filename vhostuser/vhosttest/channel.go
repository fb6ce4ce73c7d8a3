// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Channel is the frontend's end of the channel on which the backend sends
// requests (SET_BACKEND_REQ_FD).
type Channel struct {
	conn *wire.Conn
}

// OpenChannel makes the channel and gives its other end to the backend.
func (f *Frontend) OpenChannel() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open backend channel: %w", os.NewSyscallError("socketpair", err))
	}
	defer unix.Close(fds[1])
	conn, err := wire.NewConnFD(fds[0], "vhost-user backend channel")
	if err != nil {
		return err
	}
	if f.Channel != nil {
		f.Channel.Close()
	}
	f.Channel = &Channel{conn: conn}
	return f.TellSync(wire.SetBackendReqFD, nil, fds[1])
}

// Next waits for a request of the backend. The caller closes it.
func (c *Channel) Next(timeout time.Duration) (*wire.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return c.conn.Recv(ctx)
}

// Ack answers a request that asks for it.
func (c *Channel) Ack(m *wire.Message, status uint64) error {
	if !m.NeedReply() {
		return nil
	}
	h := wire.Header{Request: m.Request, Flags: wire.ReplyFlags}
	return c.conn.Send(context.Background(), h, wire.U64(status).AppendTo(nil))
}

// Close closes the channel.
func (c *Channel) Close() { _ = c.conn.Close() }
