// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Listener accepts frontends: on a listening Unix socket, or as a single inherited
// connection.
type Listener struct {
	sock   *socket.Conn
	single bool // sock is connected, and is served once
	used   bool

	path     string // to unlink, or empty
	dev, ino uint64 // of the socket file that we made
}

// Open returns the listener that the options --socket-path and --fd of a backend
// program ask for (vhost-user.rst, "Backend program conventions"): it calls
// Listen for a path that is not empty, or FromFD for a descriptor that is not
// negative. Neither and both are errors.
func Open(socketPath string, fd int) (*Listener, error) {
	switch {
	case (socketPath == "") == (fd < 0):
		return nil, errors.New("give either --socket-path or --fd")
	case fd >= 0:
		return FromFD(fd)
	}
	return Listen(socketPath)
}

// Listen listens on a Unix socket at path. Only the user of the process may connect to it
// (mode 0600). A socket file on which no process listens is replaced. Any other file at path
// is an error. The caller closes the Listener.
func Listen(path string) (_ *Listener, err error) {
	if err := unixsock.Check(path); err != nil {
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	sock, err := socket.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, "vhost-user listener", nil)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = sock.Close()
		}
	}()
	// The socket file inherits the mode of the socket's inode, so that there
	// is no moment at which others may connect.
	if err := restrict(sock); err != nil {
		return nil, fmt.Errorf("restrict socket: %w", err)
	}
	addr := &unix.SockaddrUnix{Name: path}
	err = sock.Bind(addr)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		err = sock.Bind(addr)
	}
	if err != nil {
		return nil, fmt.Errorf("bind socket %s: %w", path, err)
	}
	l := &Listener{sock: sock, path: path}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, fmt.Errorf("stat socket %s: %w", path, err)
	}
	l.dev, l.ino = st.Dev, st.Ino
	if err := sock.Listen(1); err != nil {
		l.unlink()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// removeStale removes the socket file at path if nobody listens on it.
func removeStale(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("stat socket %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("replace socket %s: it is not a socket", path)
	}
	probe, err := socket.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, "vhost-user probe", nil)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	defer probe.Close()
	_, err = probe.Connect(context.Background(), &unix.SockaddrUnix{Name: path})
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("replace socket %s: somebody listens on it", path)
	}
	if err := unix.Unlink(path); err != nil {
		return fmt.Errorf("remove stale socket %s: %w", path, err)
	}
	return nil
}

// FromFD makes a Listener of an inherited Unix stream socket, and takes ownership of it, also
// when it fails. The socket may be listening or connected; SO_ACCEPTCONN tells which.
func FromFD(fd int) (*Listener, error) {
	unix.CloseOnExec(fd)
	sock, err := socket.New(fd, "vhost-user inherited")
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("wrap inherited socket: %w", err)
	}
	listening, err := sock.GetsockoptInt(unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		_ = sock.Close()
		return nil, fmt.Errorf("inspect inherited socket: %w", err)
	}
	return &Listener{sock: sock, single: listening == 0}, nil
}

// Close closes the socket and unlinks the path that Listen made, if the file
// there is still the same one.
func (l *Listener) Close() error {
	l.unlink()
	if l.single && l.used {
		return nil // the connection closed it
	}
	return l.sock.Close()
}

func (l *Listener) unlink() {
	var st unix.Stat_t
	if l.path == "" || unix.Lstat(l.path, &st) != nil || st.Dev != l.dev || st.Ino != l.ino {
		return
	}
	_ = unix.Unlink(l.path)
}

// acceptRetry is how long to wait when the process is short of descriptors.
const acceptRetry = 100 * time.Millisecond

// accept waits for a connection. It returns io.EOF when there can be no more.
func (l *Listener) accept(ctx context.Context) (*wire.Conn, error) {
	if l.single {
		if l.used {
			return nil, io.EOF
		}
		l.used = true
		return wire.NewConn(l.sock), nil
	}
	for {
		sock, _, err := l.sock.Accept(ctx, 0)
		switch {
		case err == nil:
			return wire.NewConn(sock), nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("accept connection: %w", ctx.Err())
		case errors.Is(err, unix.ECONNABORTED):
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
			time.Sleep(acceptRetry)
		default:
			return nil, fmt.Errorf("accept connection: %w", err)
		}
	}
}

// restrict gives a socket that is not bound yet the mode of its future file.
func restrict(sock *socket.Conn) error {
	rc, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	var chmodErr error
	if err := rc.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	return os.NewSyscallError("fchmod", chmodErr)
}
