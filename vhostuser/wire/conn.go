// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

// maxFDs is how many descriptors are accepted with one message. It is more than
// any message may carry, so that a surplus is seen and not cut off.
const maxFDs = 2 * MaxMemRegions

// Conn carries messages over a connected Unix stream socket. One goroutine may receive while
// another one sends.
type Conn struct {
	sock *socket.Conn
	buf  [MaxPayload]byte
	oob  []byte
}

// NewConn makes a Conn that owns sock.
func NewConn(sock *socket.Conn) *Conn {
	return &Conn{sock: sock, oob: make([]byte, unix.CmsgSpace(maxFDs*4))}
}

// NewConnFD makes a Conn that owns the socket fd, also when it fails.
func NewConnFD(fd int, name string) (*Conn, error) {
	sock, err := socket.New(fd, name)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("wrap socket %s: %w", name, err)
	}
	return NewConn(sock), nil
}

// NewConnUnix makes a Conn of a connection of package net. It closes sock, also when it fails;
// the Conn has a descriptor of its own.
func NewConnUnix(sock *net.UnixConn, name string) (*Conn, error) {
	defer sock.Close()
	f, err := sock.File()
	if err != nil {
		return nil, fmt.Errorf("wrap socket %s: %w", name, err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("wrap socket %s: %w", name, os.NewSyscallError("fcntl", err))
	}
	return NewConnFD(fd, name)
}

// Close closes the socket and ends a blocked Recv or Send.
func (c *Conn) Close() error { return c.sock.Close() }

// HungUp says whether the peer has closed the connection, also while messages
// of it are left to receive.
func (c *Conn) HungUp() bool {
	rc, err := c.sock.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = rc.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}

// PeerPID returns the process that connected, or 0 if it is not known, as of
// another PID namespace.
func (c *Conn) PeerPID() int32 {
	pid, err := unixsock.PeerPID(c.sock)
	if err != nil {
		return 0
	}
	return int32(pid)
}

// Message is a received message.
type Message struct {
	Header
	// Payload is valid until the next Recv on the same Conn.
	Payload []byte
	// FDs belong to the message until they are taken.
	FDs []int
}

// TakeFD passes the ownership of descriptor i to the caller.
func (m *Message) TakeFD(i int) int {
	fd := m.FDs[i]
	m.FDs[i] = -1
	return fd
}

// Close closes the descriptors that nobody took.
func (m *Message) Close() {
	for _, fd := range m.FDs {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	m.FDs = nil
}

// Recv waits for a message. It returns io.EOF if the peer closed the connection between two
// messages. After any error the connection cannot be used any more. The caller must Close the
// message.
func (c *Conn) Recv(ctx context.Context) (msg *Message, err error) {
	m := &Message{}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()

	var hdr [HeaderSize]byte
	if err := c.fill(ctx, m, hdr[:]); err != nil {
		return nil, err
	}
	m.Header = decodeHeader(&hdr)
	if m.Size > MaxPayload {
		return nil, fmt.Errorf("receive message: payload is longer than %d bytes (%v)", MaxPayload,
			m.Header)
	}
	m.Payload = c.buf[:m.Size]
	if err := c.fill(ctx, m, m.Payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("receive payload of %v: %w", m.Header, io.ErrUnexpectedEOF)
		}
		return nil, err
	}
	return m, nil
}

// fill reads exactly len(p) bytes and collects the descriptors that come along.
func (c *Conn) fill(ctx context.Context, m *Message, p []byte) error {
	for done := 0; done < len(p); {
		n, oobn, flags, _, err := c.sock.Recvmsg(ctx, p[done:], c.oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			if done == 0 {
				return io.EOF
			}
			return fmt.Errorf("receive message: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return fmt.Errorf("receive message: %w", err)
		}
		fds, err := parseFDs(c.oob[:oobn])
		m.FDs = append(m.FDs, fds...)
		switch {
		case err != nil:
			return err
		case flags&unix.MSG_CTRUNC != 0 || len(m.FDs) > maxFDs:
			// What was cut off is lost (the kernel closed it), so nothing
			// is known about which descriptor means what.
			return fmt.Errorf("receive message: more than %d descriptors", maxFDs)
		}
		done += n
	}
	return nil
}

func parseFDs(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var fds []int
	for i := range cmsgs {
		if cmsgs[i].Header.Level != unix.SOL_SOCKET || cmsgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		more, err := unix.ParseUnixRights(&cmsgs[i])
		if err != nil {
			return fds, fmt.Errorf("parse control message: %w", err)
		}
		fds = append(fds, more...)
	}
	return fds, nil
}

// Send sends a message. The descriptors stay the caller's.
func (c *Conn) Send(ctx context.Context, h Header, payload []byte, fds ...int) error {
	h.Size = uint32(len(payload))
	b := append(h.AppendTo(make([]byte, 0, HeaderSize+len(payload))), payload...)
	return c.SendRaw(ctx, b, fds...)
}

// SendRaw sends bytes as they are. Descriptors go with the first one.
func (c *Conn) SendRaw(ctx context.Context, b []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(b) > 0 {
		n, err := c.sock.Sendmsg(ctx, b, oob, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			return fmt.Errorf("send message: %w", err)
		}
		b, oob = b[n:], nil
	}
	return nil
}
