// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// session is the environment of one check. Its methods end the check as failed if the
// backend violates a rule.
type session struct {
	*report.T
	cfg  *Config
	peer *peer
}

// quiet is how long a check watches for something that must not happen.
const quiet = 60 * time.Millisecond

// must ends the check as failed if err is not nil.
func (s *session) must(err error, doing string, args ...any) {
	if err != nil {
		s.Failf("%s: %v", fmt.Sprintf(doing, args...), err)
	}
}

// Failf ends the check as failed. If the backend has died, that is told as well.
func (s *session) Failf(format string, args ...any) {
	if err := s.peer.crashed(); err != nil {
		s.Notef("the backend has died: %v", err)
	}
	for _, line := range s.peer.lastWords() {
		s.Notef("backend: %s", line)
	}
	s.T.Failf(format, args...)
}

// need ends the check as not applicable unless ok.
func (s *session) need(ok bool, what string, args ...any) {
	if !ok {
		s.Skipf(what, args...)
	}
}

// connect opens a connection.
func (s *session) connect() *vhosttest.Frontend {
	f, err := s.peer.dial(s.Context(), s.cfg.Patience)
	if err != nil {
		s.Errorf("no connection to the backend: %v", err)
	}
	s.Cleanup(f.Close)
	return f
}

// realize opens a connection and negotiates protocol features. INFLIGHT_SHMFD
// has to be among the extra ones: it obliges the frontend to set a region.
func (s *session) realize(o vhosttest.Options) *vhosttest.Frontend {
	f := s.connect()
	o.Without |= 1 << wire.ProtocolInflightSHMFD &^ o.Extra
	s.must(f.Realize(o), "negotiate")
	return f
}

// realizeWith is realize for checks that need protocol features. Each is
// accepted where it is offered, also those that QEMU has no use for.
func (s *session) realizeWith(bits ...uint) *vhosttest.Frontend {
	var want wire.ProtocolFeatures
	for _, bit := range bits {
		want |= 1 << bit
	}
	f := s.realize(vhosttest.Options{Extra: want})
	for _, bit := range bits {
		s.need(f.Negotiated.Has(bit), "backend does not offer %v", wire.ProtocolFeatures(1<<bit))
	}
	return f
}

// accept fails unless the backend acknowledges a request with success.
func (s *session) accept(f *vhosttest.Frontend, req wire.Request, payload []byte, fds ...int) {
	s.must(f.Confirm(req, payload, fds...), "send %v", req)
}

// refuse fails unless the backend refuses a request, by its acknowledgement or
// by closing the connection, and serves a next one. It closes f. REPLY_ACK has
// been negotiated.
func (s *session) refuse(
	f *vhosttest.Frontend, what string, req wire.Request, payload []byte, fds ...int,
) {
	err := f.Confirm(req, payload, fds...)
	switch {
	case err == nil:
		s.Failf("%v with %s was acknowledged as a success", req, what)
	case errors.As(err, new(*vhosttest.Refused)):
	case closed(err):
		s.Notef("%v with %s: the backend closed the connection", req, what)
	default:
		s.Failf("%v with %s: %v", req, what, err)
	}
	s.serves(f, "after %v with %s", req, what)
}

// serves closes f, and fails unless the backend takes a new connection. A
// program that serves one connection, and was started by this one, may end in
// good order instead.
func (s *session) serves(f *vhosttest.Frontend, when string, args ...any) {
	f.Close()
	when = fmt.Sprintf(when, args...)
	if err := s.peer.crashed(); err != nil {
		s.Failf("the backend died %s: %v", when, err)
	}
	next, err := s.peer.dial(s.Context(), s.cfg.Patience)
	if err != nil {
		s.Failf("the backend does not serve any more %s: %v", when, err)
	}
	next.Close()
	if err := s.peer.died; err != nil {
		s.Failf("the backend died %s, and was started again: %v", when, err)
	}
}

// pipe returns the number of a descriptor to send, which stays the caller's
// until released, and a function that tells whether everybody has closed it.
func (s *session) pipe() (fd int, released func() bool) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		s.Errorf("make pipe: %v", err)
	}
	r := os.NewFile(uintptr(p[0]), "pipe")
	own := true
	s.Cleanup(func() {
		_ = r.Close()
		if own {
			unix.Close(p[1])
		}
	})
	return p[1], func() bool {
		if own {
			unix.Close(p[1])
			own = false
		}
		if err := r.SetReadDeadline(time.Now().Add(s.cfg.Patience)); err != nil {
			s.Errorf("set deadline: %v", err)
		}
		for {
			var b [64]byte
			if _, err := r.Read(b[:]); err != nil {
				return !errors.Is(err, os.ErrDeadlineExceeded)
			}
		}
	}
}
