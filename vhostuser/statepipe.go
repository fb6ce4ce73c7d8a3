// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/eventfd"
)

// errInterrupted ends a transfer that the frontend lost interest in.
var errInterrupted = errors.New("transfer was cancelled")

// atomicWrite is how much a pipe that poll calls writable takes without
// blocking (PIPE_BUF of Linux).
const atomicWrite = 4096

// statePipe is our end of the channel that carries a device's state. The open
// file description may be shared with the frontend, so that its flags are never
// changed: poll comes before each read and write, and none of them blocks.
type statePipe struct {
	fd    int
	event int // an eventfd, raised to end the transfer

	mu     sync.Mutex // guards closed, and event against its closing
	closed bool
}

var _ io.ReadWriter = (*statePipe)(nil)

// newStatePipe owns fd, also when it fails.
func newStatePipe(fd int) (*statePipe, error) {
	event, err := eventfd.New()
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make state pipe: %w", err)
	}
	return &statePipe{fd: fd, event: event}, nil
}

// interrupt ends reads and writes, from any goroutine.
func (p *statePipe) interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		_ = eventfd.Add(p.event)
	}
}

// close closes our end, when nobody reads or writes any more.
func (p *statePipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	unix.Close(p.fd)
	unix.Close(p.event)
}

func (p *statePipe) wait(events int16) error {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: events}, {Fd: int32(p.event), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("poll", err)
		case fds[1].Revents != 0:
			return errInterrupted
		default:
			return nil
		}
	}
}

// again says whether a call that poll promised something is to be repeated.
func again(err error) bool { return errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) }

// Read implements io.Reader.
func (p *statePipe) Read(b []byte) (int, error) {
	for {
		if err := p.wait(unix.POLLIN); err != nil {
			return 0, err
		}
		n, err := unix.Read(p.fd, b)
		switch {
		case again(err):
		case err != nil:
			return 0, fmt.Errorf("read device state: %w", os.NewSyscallError("read", err))
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write implements io.Writer.
func (p *statePipe) Write(b []byte) (done int, err error) {
	for done < len(b) {
		if err := p.wait(unix.POLLOUT); err != nil {
			return done, err
		}
		n, err := unix.Write(p.fd, b[done:min(len(b), done+atomicWrite)])
		switch {
		case again(err):
		case err != nil:
			return done, fmt.Errorf("write device state: %w", os.NewSyscallError("write", err))
		default:
			done += n
		}
	}
	return done, nil
}
