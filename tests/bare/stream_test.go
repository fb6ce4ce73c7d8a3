// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// stream passes a migration's stream on, up to a text in it. It keeps the rest until
// release. What the destination answers it passes on at once.
type stream struct {
	socket string
	until  []byte
	mu     sync.Mutex
	to     net.Conn // nil before the source has connected
	kept   []byte   // begins with the text, once that has come
	holds  bool     // the text has come
	passes bool     // release was called
	ended  bool     // the source sends no more
}

// startStream starts one to the socket of a destination. It ends with the test.
func startStream(t testing.TB, to, until string) *stream {
	t.Helper()
	s := &stream{until: []byte(until)}
	s.socket = relayOne(t, func(from net.Conn) {
		dst, err := net.Dial("unix", to)
		if err != nil {
			return
		}
		var answers sync.WaitGroup
		defer answers.Wait()
		answers.Go(func() {
			_, _ = io.Copy(from, dst)
			from.Close()
		})
		s.serve(from, dst)
	})
	t.Cleanup(s.release) // before the relay's end is waited for
	return s
}

// relayOne calls relay with the first connection to a socket, which it closes then. The test waits
// for the end of that.
func relayOne(t testing.TB, relay func(from net.Conn)) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fbpp-stream-")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		from, err := l.Accept()
		if err != nil {
			return // the test is over
		}
		defer from.Close()
		relay(from)
	})
	t.Cleanup(func() {
		l.Close()
		done.Wait()
		os.RemoveAll(dir)
	})
	return socket
}

// serve reads from the source until that or the destination ends.
func (s *stream) serve(from, to net.Conn) {
	chunk := make([]byte, 64<<10)
	for {
		n, err := from.Read(chunk)
		s.mu.Lock()
		s.to = to
		s.kept = append(s.kept, chunk[:n]...)
		s.ended = err != nil
		s.pass()
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// pass passes on what may be. The caller holds mu.
func (s *stream) pass() {
	n := len(s.kept) - s.begun()
	if i := bytes.Index(s.kept, s.until); i >= 0 {
		s.holds = true
		n = i
	}
	if s.passes || s.ended && !s.holds {
		n = len(s.kept)
	}
	_, _ = s.to.Write(s.kept[:n]) // if it is gone, the source is told so
	s.kept = s.kept[n:]
	if s.ended && len(s.kept) == 0 {
		s.to.Close()
	}
}

// begun returns how many bytes at the end may be the begin of the text.
func (s *stream) begun() int {
	for n := min(len(s.until)-1, len(s.kept)); n > 0; n-- {
		if bytes.HasSuffix(s.kept, s.until[:n]) {
			return n
		}
	}
	return 0
}

// release passes on what was kept, and all that comes.
func (s *stream) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passes = true
	if s.to != nil {
		s.pass()
	}
}

// isHeld tells whether the text has come.
func (s *stream) isHeld() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds
}

// isWhole tells whether all of the stream has come. It ends with a description of
// itself, which follows its length.
func (s *stream) isWhole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := bytes.Index(s.kept, []byte(`{"configuration"`))
	return i >= 4 && len(s.kept) >= i+int(binary.BigEndian.Uint32(s.kept[i-4:]))
}
