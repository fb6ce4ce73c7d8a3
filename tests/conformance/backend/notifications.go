// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// notifications are the rules of kicks and calls.
func notifications() []check {
	return []check{
		{id: "VHU-NOTE-1", source: "vhost-user.rst, VHOST_USER_SET_VRING_CALL",
			text: "The call descriptor is signalled after buffers were used.", run: calls},
		{id: "VHU-NOTE-2", source: "VIRTIO 1.2, 2.7.7", advice: true,
			text: "VIRTQ_AVAIL_F_NO_INTERRUPT keeps the device from calling.", run: noInterrupt},
		{id: "VHU-NOTE-3", source: "vhost-user.rst, VHOST_USER_SET_VRING_CALL",
			text: "A ring without a call descriptor works.", run: noCallFD},
		{id: "VHU-NOTE-4", source: "vhost-user.rst, VHOST_USER_SET_VRING_KICK", advice: true,
			text: "A ring without a kick descriptor is polled.", run: noKickFD},
		{id: "VHU-NOTE-5", source: "vhost-user.rst, Ring states: configuration may change on the fly",
			text: "A running ring takes another call descriptor, and uses it.", run: newCallFD},
		{id: "VHU-NOTE-6", source: "vhost-user.rst, Support for platforms other than Linux", advice: true,
			text: "The kick and call descriptors may be pipes.", run: pipesForEvents},
		{id: "VHU-NOTE-7", source: "QEMU 10.0 sends SET_VRING_KICK before SET_VRING_CALL",
			text: "A ring with requests on it may get its call descriptor after its kick descriptor.",
			run:  callAfterKick},
	}
}

func calls(s *session) {
	m := s.boot(bootOptions{})
	for range 10 {
		m.q.Call.Clear()
		m.put(1)
		m.kick()
		s.must(m.q.Call.Wait(m.cfg.Patience), "wait for the call")
		m.collect(1)
	}
}

func noInterrupt(s *session) {
	m := s.boot(bootOptions{})
	m.work(1)
	m.put(1)
	m.q.SetNoInterrupt(true)
	m.q.Call.Clear()
	m.kick()
	m.collectPolling(1)
	time.Sleep(quiet)
	if m.q.Call.Clear() {
		s.Failf("the device called a driver that does not want it")
	}
}

// collectPolling is collect without interrupts.
func (m *machine) collectPolling(n int) {
	deadline := time.Now().Add(m.cfg.Patience)
	for n > 0 {
		if u, ok := m.q.Poll(); ok {
			m.answered(u)
			n--
			continue
		}
		if time.Now().After(deadline) {
			m.Failf("%d requests were not answered", n)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

func noCallFD(s *session) {
	m := s.boot(bootOptions{})
	none := wire.VringFD{Index: uint32(m.q.Index), NoFD: true}.AppendTo(nil)
	m.must(m.f.TellSync(wire.SetVringCall, none), "take the call descriptor away")
	m.put(4)
	m.kick()
	m.collectPolling(4)
}

func noKickFD(s *session) {
	m := s.boot(bootOptions{})
	m.work(1)
	none := wire.VringFD{Index: uint32(m.q.Index), NoFD: true}.AppendTo(nil)
	m.must(m.f.TellSync(wire.SetVringKick, none), "take the kick descriptor away")
	m.put(4)
	m.collect(4)
}

func newCallFD(s *session) {
	m := s.boot(bootOptions{})
	m.work(1)
	old := m.q.Call
	m.q.Call = s.event()
	s.Cleanup(func() { old.Close() })
	m.must(m.f.SetCall(m.q), "set another call descriptor")
	m.must(m.f.Barrier(), "ask")
	m.q.Call.Clear()
	m.put(1)
	m.kick()
	s.must(m.q.Call.Wait(m.cfg.Patience), "wait for the new call descriptor")
	m.collect(1)
}

func callAfterKick(s *session) {
	m := s.boot(bootOptions{})
	for range 20 {
		m.stopQueue()
		m.put(2)
		m.kick()
		m.must(m.f.StartRing(m.q), "start a ring with requests on it")
		m.must(m.f.Enable(m.q, true), "enable a ring with requests on it")
		m.collectPolling(2)
	}
}

func pipesForEvents(s *session) {
	m := s.boot(bootOptions{stopped: true})
	m.configure()
	kickR, kickW := s.twoEnds()
	callR, callW := s.twoEnds()
	m.startRings(false)
	index := wire.VringFD{Index: uint32(m.q.Index)}.AppendTo(nil)
	m.must(m.f.Tell(wire.SetVringKick, index, kickR), "set a pipe to kick")
	m.must(m.f.Tell(wire.SetVringCall, index, callW), "set a pipe to call")
	m.enable(true)
	m.put(1)
	if _, err := unix.Write(kickW, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		s.Errorf("kick: %v", err)
	}
	s.must(awaitInput(callR, m.cfg.Patience), "wait for the call")
	m.collectPolling(1)
}

// awaitInput waits until fd can be read.
func awaitInput(fd int, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		left := max(time.Until(deadline), 0)
		switch n, err := unix.Poll(ready, int(left.Milliseconds())); {
		case errors.Is(err, unix.EINTR): // of the runtime's signals
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n > 0:
			return nil
		case left == 0:
			return vhosttest.ErrTimeout
		}
	}
}

// twoEnds returns a pipe that is closed with the check.
func (s *session) twoEnds() (r, w int) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		s.Errorf("make pipe: %v", err)
	}
	s.Cleanup(func() {
		unix.Close(p[0])
		unix.Close(p[1])
	})
	return p[0], p[1]
}
