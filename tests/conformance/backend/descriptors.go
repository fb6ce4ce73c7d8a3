// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"os"
	"strconv"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// descriptors are the rules of who closes file descriptors. The checks send one end of a
// pipe: reading the other end returns EOF when every process has closed it.
func descriptors() []check {
	const source = "vhost-user.rst, Communication; unix(7), SCM_RIGHTS"
	return []check{
		{id: "VHU-FD-1", source: source, advice: true,
			text: "A descriptor that comes with a request which takes none is closed.", run: surplusFD},
		{id: "VHU-FD-2", source: source, advice: true,
			text: "A descriptor that comes with an unknown request is closed.", run: unknownRequestFD},
		{id: "VHU-FD-3", source: "vhost-user.rst, VHOST_USER_SET_VRING_CALL",
			text: "A call descriptor is closed when another one replaces it.", run: replacedFD},
		{id: "VHU-FD-4", source: "vhost-user.rst, Communication",
			text: "What a frontend sent is closed when it is gone.", run: disconnectedFD},
		{id: "VHU-FD-5", source: "vhost-user.rst, Communication",
			text: "A hundred frontends, one after the other, leave no descriptors behind.", run: leakedFDs},
	}
}

func surplusFD(s *session) {
	f := s.realize(vhosttest.Options{})
	fd, released := s.pipe()
	err := f.Send(wire.SetVringNum, 0, wire.VringState{Num: 64}.AppendTo(nil), fd, fd)
	s.must(err, "send %v with two descriptors", wire.SetVringNum)
	s.expectReleased(f, released, "two descriptors that came with SET_VRING_NUM")
}

func unknownRequestFD(s *session) {
	f := s.realize(vhosttest.Options{})
	fd, released := s.pipe()
	s.must(f.Send(unknownRequest, 0, nil, fd), "send an unknown request")
	s.expectReleased(f, released, "a descriptor that came with an unknown request")
}

// expectReleased fails unless the backend releases a descriptor. The backend may also close
// the connection, as an answer to a wrong request, but has to release the descriptor then.
func (s *session) expectReleased(f *vhosttest.Frontend, released func() bool, what string) {
	if err := f.Barrier(); err != nil && !closed(err) {
		s.Failf("ask after %s: %v", what, err)
	}
	if !released() {
		s.Failf("the backend still holds %s", what)
	}
}

func replacedFD(s *session) {
	f := s.realize(vhosttest.Options{})
	fd, released := s.pipe()
	call := s.event()
	set := func(fd int) {
		s.must(f.Tell(wire.SetVringCall, wire.VringFD{}.AppendTo(nil), fd), "send %v", wire.SetVringCall)
	}
	set(fd)
	set(call.FD)
	s.must(f.Barrier(), "ask after %v", wire.SetVringCall)
	if !released() {
		s.Failf("the backend still holds the call descriptor that was replaced")
	}
}

func disconnectedFD(s *session) {
	f := s.realize(vhosttest.Options{})
	fd, released := s.pipe()
	s.must(f.Tell(wire.SetVringCall, wire.VringFD{}.AppendTo(nil), fd), "send %v", wire.SetVringCall)
	s.must(f.Tell(wire.SetVringErr, wire.VringFD{}.AppendTo(nil), fd), "send %v", wire.SetVringErr)
	s.must(f.Barrier(), "ask after %v", wire.SetVringErr)
	f.Close()
	if !released() {
		s.Failf("the backend still holds the descriptors of a frontend that is gone")
	}
}

func leakedFDs(s *session) {
	s.connect().Close()
	if s.peer.process != nil && s.peer.leaves() {
		s.Skipf("the backend ends with its frontend")
	}
	pid, err := s.peer.pid()
	switch {
	case err != nil:
		s.Errorf("find the backend's process: %v", err)
	case pid == os.Getpid():
		s.Skipf("the backend runs in the suite's own process")
	}
	count := func() int {
		s.connect().Close()
		entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
		if err != nil {
			s.Skipf("the backend's descriptors cannot be counted: %v", err)
		}
		return len(entries)
	}
	before := count()
	for range 100 {
		f := s.realize(vhosttest.Options{})
		call := s.event()
		payload := wire.VringFD{}.AppendTo(nil)
		s.must(f.Tell(wire.SetVringCall, payload, call.FD), "send %v", wire.SetVringCall)
		s.must(f.Barrier(), "ask")
		f.Close()
		call.Close()
	}
	if after := count(); after > before+8 {
		s.Failf("the backend had %d descriptors before, and has %d after", before, after)
	}
}

// event makes an eventfd that is closed with the check.
func (s *session) event() *vhosttest.Event {
	e, err := vhosttest.NewEvent()
	if err != nil {
		s.Errorf("%v", err)
	}
	s.Cleanup(e.Close)
	return e
}
