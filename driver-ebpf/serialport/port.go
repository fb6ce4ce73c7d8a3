// SPDX-License-Identifier: Apache-2.0

package serialport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
)

const (
	// patience is how long the host may take to open its side. QEMU tries to connect to fbppd
	// once a second.
	patience = 3 * time.Second
	// sendLimit is how long Send waits until the host reads. A host that works is never so slow.
	sendLimit = 10 * time.Second
	// hungUpPause is how often the port is looked at while the host's side is closed. The kernel
	// has no event for its opening that a wait could end by.
	hungUpPause = 50 * time.Millisecond
)

// ErrHungUp says that the host has closed its side of the port.
var ErrHungUp = errors.New("the host has closed the serial port")

// Obstacle says why the agent does not use the device. HELLO has it until the host asks for
// reports by the port.
type Obstacle struct {
	Status protocol.Status
	Reason string
}

// Port is the transport over a virtio-serial port.
type Port struct {
	obstacle Obstacle
	fd       int
	invited  bool // the host takes reports
	in       [protocol.EventSize]byte
	have     int // bytes of in
	out      []byte

	wakeMu sync.Mutex // guards wake: any goroutine may call Interrupt during Close
	wake   int        // eventfd; -1: closed
}

var _ agent.Transport = (*Port)(nil)

// Open opens the port, and waits until the host has opened its side. The error wraps
// os.ErrNotExist if there is no such port, and [ErrHungUp] if the host does not open it within
// three seconds. The caller closes the result.
func Open(why Obstacle) (*Port, error) {
	path, err := find("/sys/class/virtio-ports", "/dev")
	if err != nil {
		return nil, err
	}
	// Another agent that has it open makes this fail.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open agent port: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	p, err := newPort(fd, why)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	for end := time.Now().Add(patience); ; time.Sleep(hungUpPause) {
		err := p.wait(unix.POLLOUT, max(time.Until(end), 0))
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, ErrHungUp) || time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("open agent port: %w", err), p.Close())
		}
	}
}

// newPort returns the transport over fd, which does not block, and which Close closes.
func newPort(fd int, why Obstacle) (*Port, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &Port{obstacle: why, fd: fd, wake: wake}, nil
}

// Introduce implements [agent.Transport]. Until the host asks, the agent refuses, and says
// that it could report [FBPP-PORT-1]. Programs do not go by the port.
func (p *Port) Introduce(g agent.Guest) agent.Guest {
	g.Hello.Features &^= protocol.FeaturePrograms
	if g.Status != protocol.StatusOK {
		return g
	}
	g.Hello.Features |= protocol.FeaturePort
	if !p.invited {
		g.Status, g.Hello.Reason = p.obstacle.Status, p.obstacle.Reason
	}
	return g
}

// KnowsPrograms implements [agent.Transport].
func (p *Port) KnowsPrograms() bool { return false }

// Program implements [agent.Transport].
func (p *Port) Program() (protocol.ProgramEvent, error) {
	return protocol.ProgramEvent{}, errors.New("no event about a program comes by the serial port")
}

// Receive implements [agent.Transport].
func (p *Port) Receive(limit time.Duration) (protocol.Event, bool, error) {
	end := time.Now().Add(limit)
	for {
		n, err := unix.Read(p.fd, p.in[p.have:])
		switch {
		case err == nil && n == 0:
			return protocol.Event{}, false, fmt.Errorf("read from agent port: %w", ErrHungUp)
		case err == nil:
			if p.have += n; p.have == len(p.in) {
				p.have = 0
				event, err := protocol.DecodeEvent(p.in[:])
				return p.learn(event), err == nil && !event.Type.IsProgram(), err
			}
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return protocol.Event{}, false, fmt.Errorf("read from agent port: %w", err)
		case limit == 0:
			return protocol.Event{}, false, nil
		}
		left := agent.Forever
		if limit > 0 {
			if left = time.Until(end); left <= 0 {
				return protocol.Event{}, false, nil
			}
		}
		if err := p.wait(unix.POLLIN, left); errors.Is(err, os.ErrDeadlineExceeded) {
			return protocol.Event{}, false, nil
		} else if err != nil {
			return protocol.Event{}, false, err
		}
	}
}

// learn notes whether the host takes reports. Either way the agent says HELLO: a host that
// does not gets to know why there are none [FBPP-PORT-4].
func (p *Port) learn(e protocol.Event) protocol.Event {
	if e.Type == protocol.EventChanged {
		p.invited = e.Flags&protocol.EventHelloWanted != 0
		e.Flags |= protocol.EventHelloWanted
	}
	return e
}

// wait waits for events of the port. The error wraps os.ErrDeadlineExceeded after limit,
// agent.ErrInterrupted after Interrupt, and ErrHungUp.
func (p *Port) wait(events int16, limit time.Duration) error {
	fds := []unix.PollFd{
		{Fd: int32(p.fd), Events: events}, {Fd: int32(p.wake), Events: unix.POLLIN},
	}
	var timeout *unix.Timespec
	if limit >= 0 {
		t := unix.NsecToTimespec(limit.Nanoseconds())
		timeout = &t
	}
	// This blocks the thread, as virtio's Wait does, so that nothing has to wake another one.
	n, err := unix.Ppoll(fds, timeout, nil)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("wait for agent port: %w", os.NewSyscallError("ppoll", err))
	case fds[0].Revents&events != 0:
		return nil
	case fds[0].Revents != 0: // POLLHUP; POLLERR if the port was unplugged
		return fmt.Errorf("wait for agent port: %w", ErrHungUp)
	case n == 0:
		return fmt.Errorf("wait for agent port: %w", os.ErrDeadlineExceeded)
	}
	var count [8]byte
	_, _ = unix.Read(p.wake, count[:])
	return fmt.Errorf("wait for agent port: %w", agent.ErrInterrupted)
}

// Send implements [agent.Transport]. The kernel copies the message. After an error the
// message may be cut: the host closes its side then.
func (p *Port) Send(m agent.Message) error {
	p.out = append(append(append(p.out[:0], m.Head...), m.Body...), m.Tail...)
	interrupted := false
	defer func() {
		if interrupted { // it was meant for Receive
			p.Interrupt()
		}
	}()
	for left, end := p.out, time.Now().Add(sendLimit); len(left) > 0; {
		n, err := unix.Write(p.fd, left)
		switch {
		case err == nil:
			left = left[n:]
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("write to agent port: %w", err)
		}
		err = p.wait(unix.POLLOUT, max(time.Until(end), 0))
		if errors.Is(err, agent.ErrInterrupted) {
			interrupted = true
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			// Not os.ErrDeadlineExceeded: the message is cut, so the port cannot be used.
			return errors.New("write to agent port: the host does not read")
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Flush implements [agent.Transport].
func (p *Port) Flush() {}

// Drain implements [agent.Transport].
func (p *Port) Drain(time.Duration) error { return nil }

// MaxBody implements [agent.Transport].
func (p *Port) MaxBody() int { return protocol.MaxPortRecords * protocol.RecordSize }

// Interrupt implements [agent.Transport].
func (p *Port) Interrupt() {
	p.wakeMu.Lock()
	defer p.wakeMu.Unlock()
	if p.wake < 0 {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(p.wake, one[:]) // EAGAIN: the counter is full, and the wait ends anyway
}

// Close closes the port. The host does not notice.
func (p *Port) Close() error {
	p.wakeMu.Lock()
	defer p.wakeMu.Unlock()
	err := errors.Join(os.NewSyscallError("close", unix.Close(p.fd)),
		os.NewSyscallError("close", unix.Close(p.wake)))
	p.fd, p.wake = -1, -1
	return err
}
