// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Server is the guest's end of the order channel: it reads requests, and has Programs
// carry them out.
type Server struct {
	programs *Programs

	mu  sync.Mutex // one line at a time
	out io.Writer
}

// NewServer returns a server that answers on out.
func NewServer(out io.Writer) *Server {
	return &Server{programs: newPrograms(), out: out}
}

// Ready tells the host that the guest has booted. Firmware may have left a partial line at the
// port, which is ended first.
func (s *Server) Ready(release string) error {
	if _, err := io.WriteString(s.out, "\n"); err != nil {
		return err
	}
	return s.answer(Reply{Ready: release})
}

// Serve reads requests from in until it ends. Each is carried out in a
// goroutine of its own.
func (s *Server) Serve(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read requests: %w", err)
		}
		var r Request
		if json.Unmarshal(line, &r) != nil || r.ID == 0 {
			continue
		}
		go func() {
			reply := s.programs.do(r)
			reply.ID = r.ID
			// If the reply cannot be written, the host's request times out: the guest
			// has no other way to tell it.
			_ = s.answer(reply)
		}()
	}
}

func (s *Server) answer(r Reply) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = fmt.Fprintf(s.out, "%s\n", line)
	return err
}
