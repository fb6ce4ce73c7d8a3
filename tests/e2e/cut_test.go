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

// startCut starts a relay between one frontend and the backend at a socket, and
// returns the relay's own socket. The relay passes messages on until the backend
// has answered the request last. It hangs up as soon as the frontend has sent
// another message, and does not read that one: so the frontend's connection is
// reset. The relay ends with the test.
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

// serveCut serves frontends until it has cut one off. One that ends by itself before, as a guest
// that dies while it boots, is followed by another.
func serveCut(ctx context.Context, l *net.UnixListener, backend string, last wire.Request) error {
	for {
		accepted, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		if cut, err := serveOne(ctx, l, accepted, backend, last); cut || err != nil {
			return err
		}
	}
}

// serveOne serves a frontend, and says whether it was cut off. Then it has closed l before: a
// frontend that was cut off cannot reconnect.
func serveOne(
	ctx context.Context, l *net.UnixListener, accepted *net.UnixConn, backend string,
	last wire.Request,
) (cut bool, _ error) {
	sent, err := accepted.File() // to poll the socket without reading it
	if err != nil {
		accepted.Close()
		return false, err
	}
	defer sent.Close()
	fd := int32(sent.Fd()) // makes the socket blocking, which NewConnUnix reverts
	front, err := wire.NewConnUnix(accepted, "cut")
	if err != nil {
		return false, err
	}
	defer front.Close()
	dialed, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: backend, Net: "unix"})
	if err != nil {
		return false, err
	}
	back, err := wire.NewConnUnix(dialed, "cut")
	if err != nil {
		return false, err
	}
	defer back.Close()

	answered := make(chan struct{})
	var both errgroup.Group
	both.Go(func() error {
		defer back.Close() // ends the other direction
		return pass(ctx, front, back, last, func() error {
			<-answered
			l.Close()
			_, err := unix.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, -1)
			return err
		})
	})
	both.Go(func() error {
		return pass(ctx, back, front, last, func() error { close(answered); return nil })
	})
	_ = both.Wait() // an error is expected: the connection has ended
	select {
	case <-answered:
		return true, nil
	default:
		return false, nil
	}
}

// pass passes messages on until it has passed the request last, or the answer to
// that, and then returns what done returns.
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
