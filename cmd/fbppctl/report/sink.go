// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// sink takes a migration, and throws it away. It is on TCP, and of this host only: where QEMU
// is confined it may still migrate over TCP, but neither run programs nor open others' sockets.
type sink struct {
	net.Listener
	taking sync.WaitGroup

	mu     sync.Mutex
	conn   net.Conn // nil before QEMU has connected
	closed bool
}

// openSink returns a sink that the caller closes.
func openSink() (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the migration: %w", err)
	}
	s := &sink{Listener: l}
	s.taking.Go(s.take)
	return s, nil
}

// uri is where QEMU finds it.
func (s *sink) uri() string { return "tcp:" + s.Addr().String() }

// take takes what one connection sends.
func (s *sink) take() {
	conn, err := s.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	s.mu.Lock()
	s.conn = conn
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return
	}
	_, _ = io.CopyBuffer(io.Discard, struct{ io.Reader }{conn}, make([]byte, 1<<20))
}

// Close ends it. A migration that still sends then fails, and its guest goes on.
func (s *sink) Close() error {
	err := s.Listener.Close()
	s.mu.Lock()
	s.closed = true
	if s.conn != nil {
		s.conn.Close()
	}
	s.mu.Unlock()
	s.taking.Wait()
	return err
}
