// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// outputLimit is how much of a program's output is kept, in bytes. The end is kept,
// because it tells why the program failed.
const outputLimit = 1 << 20

// Programs carries out requests, and keeps the background programs by name. It is safe
// for concurrent use.
type Programs struct {
	mu      sync.Mutex
	running map[string]*program // guarded by mu
}

// program is a background program.
type program struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // its output, line by line; closed at its end

	telling sync.Mutex // one question at a time
	tail    tail       // what was not the answer to a question: its errors
}

func newPrograms() *Programs { return &Programs{running: make(map[string]*program)} }

// do carries out one request.
func (p *Programs) do(r Request) Reply {
	reply, err := p.dispatch(r)
	if err != nil {
		reply.Error = err.Error()
	}
	return reply
}

func (p *Programs) dispatch(r Request) (Reply, error) {
	switch r.Op {
	case OpPing:
		return Reply{}, nil
	case OpRun:
		return run(r)
	case OpStart:
		return Reply{}, p.start(r)
	}
	p.mu.Lock()
	prog, ok := p.running[r.Name]
	p.mu.Unlock()
	if !ok {
		return Reply{}, fmt.Errorf("no program %q is running", r.Name)
	}
	switch r.Op {
	case OpTell:
		return prog.tell(r.Line)
	case OpSignal:
		return Reply{}, prog.cmd.Process.Signal(syscall.Signal(r.Signal))
	case OpOutput:
		return Reply{Output: prog.output()}, nil
	case OpWait:
		reply, err := prog.wait()
		p.mu.Lock()
		delete(p.running, r.Name)
		p.mu.Unlock()
		return reply, err
	}
	return Reply{}, fmt.Errorf("unknown operation %q", r.Op)
}

// command makes the command of a request.
func command(r Request) (*exec.Cmd, error) {
	if len(r.Args) == 0 {
		return nil, errors.New("no program was named")
	}
	cmd := exec.Command(r.Args[0], r.Args[1:]...)
	cmd.Env = append(os.Environ(), r.Env...)
	return cmd, nil
}

func run(r Request) (Reply, error) {
	cmd, err := command(r)
	if err != nil {
		return Reply{}, err
	}
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	exit, err := exitStatus(cmd.Run())
	return Reply{Exit: exit, Output: out.String()}, err
}

func (p *Programs) start(r Request) error {
	cmd, err := command(r)
	if err != nil {
		return err
	}
	prog := &program{cmd: cmd, lines: make(chan string, 64)}
	cmd.Stderr = &prog.tail
	if prog.in, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.running[r.Name]; ok {
		return fmt.Errorf("%q is running already", r.Name)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.running[r.Name] = prog
	go prog.read(out)
	return nil
}

// read puts the output into the queue, line by line. If the queue is full, because
// nobody asks, lines go to the tail.
func (p *program) read(out io.Reader) {
	defer close(p.lines)
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, outputLimit)
	for scan.Scan() {
		select {
		case p.lines <- scan.Text():
		default:
			fmt.Fprintln(&p.tail, scan.Text())
		}
	}
}

// tell asks the program and waits for its answer.
func (p *program) tell(line string) (Reply, error) {
	p.telling.Lock()
	defer p.telling.Unlock()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		return Reply{Output: p.tail.String()}, fmt.Errorf("ask: %w", err)
	}
	answer, ok := <-p.lines
	if !ok {
		return Reply{Output: p.tail.String()}, fmt.Errorf("it ended: %s", p.tail.String())
	}
	return Reply{Output: answer}, nil
}

// output returns the output that was not an answer to tell.
func (p *program) output() string {
	p.telling.Lock() // or it could take the answer to a question
	defer p.telling.Unlock()
	for {
		select {
		case line, ok := <-p.lines:
			if ok {
				fmt.Fprintln(&p.tail, line)
				continue
			}
		default:
		}
		return p.tail.String()
	}
}

// wait closes the program's input and waits for its end.
func (p *program) wait() (Reply, error) {
	p.in.Close()
	for line := range p.lines { // Wait closes the pipe: read it to its end first
		fmt.Fprintln(&p.tail, line)
	}
	exit, err := exitStatus(p.cmd.Wait())
	return Reply{Exit: exit, Output: p.tail.String()}, err
}

// exitStatus returns a status for a program that ran, and an error for one that
// did not.
func exitStatus(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return -int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// tail is a writer that keeps the end of the written bytes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - outputLimit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimRight(string(t.buf), "\n")
}
