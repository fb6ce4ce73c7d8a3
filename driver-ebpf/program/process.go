// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// self is the agent's own program, also after its file was replaced.
const self = "/proc/self/exe"

// child is a process that loads one program. Whoever has it calls stop.
type child struct {
	cmd       *exec.Cmd
	socket    *net.UnixConn
	stdin     io.Writer  // a child that waits ends with this, and so with the agent
	diagnosis *beginning // until ended is closed the process's
	ended     chan struct{}
	err       error // of the process, once ended is closed
}

// startChild starts a child. command is for tests; nil is the agent's own program.
func startChild(command []string, more ...string) (*child, error) {
	if command == nil {
		command = append([]string{self, ChildArg}, more...)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close() // or a child that says nothing would never be heard of
	c := &child{
		cmd: exec.Command(command[0], command[1:]...), socket: ours,
		diagnosis: &beginning{}, ended: make(chan struct{}),
	}
	c.cmd.Args[0] = os.Args[0]
	c.cmd.Env = []string{"GOTRACEBACK=none", "GOGC=off", "GOMEMLIMIT=256MiB"}
	c.cmd.ExtraFiles, c.cmd.WaitDelay, c.cmd.Stderr = []*os.File{theirs}, time.Second, c.diagnosis
	if c.stdin, err = c.cmd.StdinPipe(); err == nil { // Wait closes it
		err = c.cmd.Start()
	}
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the loader: %w", err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// ask hands the child a request, and waits until it says that it has it.
func (c *child) ask(ctx context.Context, text []byte, maps []*os.File) error {
	inTime := c.expire(ctx)
	fds := make([]int, 0, len(maps))
	for _, f := range maps {
		fds = append(fds, int(f.Fd()))
	}
	go func() { // ends with the process, if that does not read
		_, _ = c.stdin.Write(text) // else the child does not say that it has it
	}()
	_, _, err := c.socket.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil)
	said := make([]byte, len(taken))
	if err == nil {
		_, err = c.socket.Read(said)
	}
	if err == nil && string(said) != taken {
		err = errors.New("it says something else")
	}
	if !inTime() && err == nil {
		err = os.ErrDeadlineExceeded // and the socket is of no more use
	}
	if err != nil {
		return c.silent(ctx, fmt.Errorf("hand over what to load: %w", err))
	}
	return nil
}

// result returns what the child says of its request, and the program, which has to be of that type.
// The child is told to end then, and has no say any more. Nobody waits for its end.
func (c *child) result(ctx context.Context, of ebpf.ProgramType) (answer, *ebpf.Program, error) {
	a, prog, err := c.hear(ctx, of)
	_ = c.cmd.Process.Kill() // fails if it has ended
	c.socket.Close()
	return a, prog, err
}

// hear returns what the child says.
func (c *child) hear(ctx context.Context, of ebpf.ProgramType) (answer, *ebpf.Program, error) {
	defer c.expire(ctx)() // it is the last that is read, but in a rehearsal
	a, prog, err := readAnswer(c.socket, of)
	if errors.Is(err, errNoAnswer) {
		return a, nil, c.silent(ctx, err)
	}
	return a, prog, err
}

// expire has reads from the child fail when ctx has ended. The caller calls the result, which says
// whether it has not.
func (c *child) expire(ctx context.Context) (inTime func() bool) {
	return context.AfterFunc(ctx, func() {
		_ = c.socket.SetReadDeadline(time.Unix(1, 0)) // fails if it is closed, as the read does
	})
}

// silent says why there is no answer. A child that ends by itself says more than err.
func (c *child) silent(ctx context.Context, err error) error {
	byItself := false
	select {
	case <-c.ended:
		byItself = true
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	c.stop()
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case byItself && c.err != nil:
		err = c.err
	}
	return fmt.Errorf("the loader ended without an answer: %w%s", err, c.diagnosis.first())
}

// stop ends the process, and waits for its end. It may be called more than once.
func (c *child) stop() {
	_ = c.cmd.Process.Kill() // fails if it has ended
	<-c.ended
	c.socket.Close()
}

func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(fds[0]), "socket")
	theirs = os.NewFile(uintptr(fds[1]), "socket")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err == nil {
		return conn.(*net.UnixConn), theirs, nil // a unix socket, by its family
	}
	theirs.Close()
	return nil, nil, fmt.Errorf("open the socket: %w", err)
}

// beginning keeps the beginning of what a child prints: the rest is a stack trace.
type beginning struct{ text []byte }

// Write implements io.Writer.
func (b *beginning) Write(p []byte) (int, error) {
	b.text = append(b.text, p[:min(len(p), 256-len(b.text))]...)
	return len(p), nil
}

// first returns the first line after a colon, or "".
func (b *beginning) first() string {
	line, _, _ := strings.Cut(string(b.text), "\n")
	if line == "" {
		return ""
	}
	return ": " + line
}
