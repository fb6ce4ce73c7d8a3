// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// backend is a process of an example backend, and its socket. It can be killed and started
// again at the same socket.
type backend struct {
	t      *testing.T
	socket string
	path   string
	args   []string
	cmd    *exec.Cmd
	stdin  *os.File // nil: none
	stdout io.Writer
	said   vm.Output
	ended  chan struct{} // closed when the process has ended
}

// startBackend starts a program and returns when it listens. It ends with the
// test.
func startBackend(t *testing.T, path string, args ...string) *backend {
	t.Helper()
	b := newBackend(t, path, args...)
	b.start()
	return b
}

// newBackend is like startBackend, but does not start the program.
func newBackend(t *testing.T, path string, args ...string) *backend {
	t.Helper()
	dir, err := os.MkdirTemp("", "fbpp-be-") // short, for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{t: t, socket: filepath.Join(dir, "vhost.sock"), path: path}
	b.stdout = &b.said
	b.args = append([]string{"--socket-path=" + b.socket}, args...)
	t.Cleanup(func() {
		b.end(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(path), b.said.String())
		}
		os.RemoveAll(dir)
	})
	return b
}

// start starts the program, also after its end.
func (b *backend) start() {
	b.t.Helper()
	b.cmd = exec.Command(b.path, b.args...)
	if b.stdin != nil {
		b.cmd.Stdin = b.stdin
	}
	b.cmd.Stdout, b.cmd.Stderr = b.stdout, &b.said
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	cmd, ended := b.cmd, make(chan struct{})
	b.ended = ended
	go func() {
		_ = cmd.Wait() // the status is in cmd.ProcessState
		close(ended)
	}()
	for {
		if conn, err := net.Dial("unix", b.socket); err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			b.t.Fatalf("%s ended: %v\n%s", b.path, b.cmd.ProcessState, b.said.String())
		case <-time.After(time.Millisecond):
		}
	}
}

// end sends a signal and waits for the end of the process.
func (b *backend) end(s syscall.Signal) {
	if b.ended == nil {
		return // it never began
	}
	_ = b.cmd.Process.Signal(s) // it may have ended
	<-b.ended
}
