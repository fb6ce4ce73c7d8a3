// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Channel is the frontend's end of the channel on which the backend sends
// requests (SET_BACKEND_REQ_FD).
type Channel struct {
	conn *wire.Conn
	wg   sync.WaitGroup // of Serve
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

// Reply answers a request with a status and descriptors, asked or not.
func (c *Channel) Reply(m *wire.Message, status uint64, fds ...int) error {
	h := wire.Header{Request: m.Request, Flags: wire.ReplyFlags}
	return c.conn.Send(context.Background(), h, wire.U64(status).AppendTo(nil), fds...)
}

// Serve answers each request with the status that handle returns for it, on a
// goroutine of its own, until the channel is closed. Next must not be used
// then.
func (c *Channel) Serve(handle func(m *wire.Message) (status uint64)) {
	c.wg.Go(func() {
		for {
			m, err := c.conn.Recv(context.Background())
			if err != nil {
				return
			}
			err = c.Ack(m, handle(m))
			m.Close()
			if err != nil {
				return
			}
		}
	})
}

// Close closes the channel, and waits for the end of Serve.
func (c *Channel) Close() {
	_ = c.conn.Close()
	c.wg.Wait()
}
