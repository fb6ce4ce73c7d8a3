// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// peer is the backend under test. A suite uses it from one goroutine at a time.
type peer struct {
	path    string
	command []string
	process *process
	stderr  tail  // of all processes, one after the other
	died    error // how an earlier process ended during this check
	// formatted says that the profile has put its data on the device.
	formatted bool
}

// process is a running backend. It has a process group of its own, because the command may
// be a shell that starts the backend.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is set then
	err  error
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

const (
	tailBytes = 2000
	tailLines = 5
)

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-tailBytes):]
	return len(p), nil
}

// take returns the last lines, and forgets them.
func (t *tail) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.FieldsFunc(string(t.text), func(r rune) bool { return r == '\n' })
	t.text = nil
	return lines[max(0, len(lines)-tailLines):]
}

// lastWords returns the last lines that the backend wrote to stderr, if the suite started it.
func (p *peer) lastWords() []string { return p.stderr.take() }

// begin forgets how the backend ended in earlier checks.
func (p *peer) begin() {
	p.lastWords()
	p.died = nil
	if p.process != nil && p.process.ended() {
		p.process = nil
	}
}

// start starts the backend if there is a command for it and it does not run, and waits until
// it listens.
func (p *peer) start(ctx context.Context) error {
	if len(p.command) == 0 || p.process != nil && !p.process.ended() {
		return nil
	}
	if p.process != nil && p.process.err != nil {
		p.died = p.process.err
	}
	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	_ = unix.Unlink(p.path) // of one that ended without
	p.process = &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = &p.stderr
	if err := cmd.Start(); err != nil {
		p.process = nil
		return fmt.Errorf("start backend: %w", err)
	}
	go p.process.wait()
	for !listens(p.path) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for backend to listen: %w", ctx.Err())
		case <-p.process.done:
			return fmt.Errorf("backend ended at its start: %w", p.process.failure())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// listens says whether there is a socket file at path, which a backend makes when it listens.
// It does not connect, because the backend may serve only a single connection.
func listens(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.done)
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// failure says how a process that has ended did so.
func (p *process) failure() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// stop ends what start began.
func (p *peer) stop() {
	if p.process == nil {
		return
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if p.process.ended() {
			break
		}
		_ = unix.Kill(-p.process.cmd.Process.Pid, sig) // the group
		select {
		case <-p.process.done:
		case <-time.After(2 * time.Second):
		}
	}
	p.process = nil
}

// crashed returns how the backend died since the check began, or nil. A death that happens
// later is found when the next check connects.
func (p *peer) crashed() error {
	if p.died != nil {
		return p.died
	}
	if p.process == nil {
		return nil
	}
	select {
	case <-p.process.done:
		return p.process.err
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

// dial connects, and waits until the backend serves the connection: the backend may not have
// noticed yet that the last connection has ended.
func (p *peer) dial(ctx context.Context, patience time.Duration) (*vhosttest.Frontend, error) {
	deadline := time.Now().Add(patience)
	for {
		f, err := p.try(ctx, patience)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return f, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *peer) try(ctx context.Context, patience time.Duration) (*vhosttest.Frontend, error) {
	if err := p.start(ctx); err != nil {
		return nil, err
	}
	f, err := vhosttest.Dial(p.path)
	if err != nil {
		return nil, err
	}
	f.Timeout = patience
	if err := f.Send(wire.GetFeatures, 0, nil); err != nil {
		f.Close()
		return nil, err
	}
	m, err := f.Recv()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("wait for a first answer: %w", err)
	}
	m.Close()
	return f, nil
}

// pid returns the process that listens.
func (p *peer) pid() (int, error) {
	conn, err := net.Dial("unix", p.path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return unixsock.PeerPID(conn.(*net.UnixConn))
}

// closed says whether err means that the backend closed the connection.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}
