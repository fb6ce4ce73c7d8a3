// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// startCut listens in a backend's place, and passes on what one frontend and
// the backend say, until the backend has answered the request last. It hangs up
// when the frontend has sent something more, which nobody has read.
func startCut(t *testing.T, backend string, last wire.Request) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "cut.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- serveCut(ctx, l, backend, last) }()
	t.Cleanup(func() {
		cancel()
		l.Close()
		if err := <-served; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	return socket
}

func serveCut(ctx context.Context, l *net.UnixListener, backend string, last wire.Request) error {
	accepted, err := l.AcceptUnix()
	l.Close() // whoever was cut off does not come back
	if err != nil {
		return err
	}
	sent, err := accepted.File() // becomes readable when there is more
	if err != nil {
		accepted.Close()
		return err
	}
	defer sent.Close()
	fd := int32(sent.Fd()) // which puts the socket into blocking mode, until it is a Conn's
	front, err := wire.NewConnUnix(accepted, "cut")
	if err != nil {
		return err
	}
	defer front.Close()
	dialed, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: backend, Net: "unix"})
	if err != nil {
		return err
	}
	back, err := wire.NewConnUnix(dialed, "cut")
	if err != nil {
		return err
	}
	defer back.Close()

	answered := make(chan struct{})
	var both errgroup.Group
	both.Go(func() error {
		defer back.Close() // ends the other one
		return pass(ctx, front, back, last, func() error {
			<-answered
			_, err := unix.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, -1)
			return err
		})
	})
	both.Go(func() error {
		return pass(ctx, back, front, last, func() error { close(answered); return nil })
	})
	_ = both.Wait() // one of them was cut
	return nil
}

// pass passes messages on until it has passed the request last, or an answer to
// it, and then calls done.
func pass(ctx context.Context, from, to *wire.Conn, last wire.Request, done func() error) error {
	for {
		m, err := from.Recv(ctx)
		if err != nil {
			return err
		}
		err = to.Send(ctx, m.Header, m.Payload, m.FDs...)
		m.Close()
		if err != nil {
			return err
		}
		if wire.Request(m.Request) == last {
			return done()
		}
	}
}
