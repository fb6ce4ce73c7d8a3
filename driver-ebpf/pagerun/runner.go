// SPDX-License-Identifier: Apache-2.0

package pagerun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What the memory of each program begins with, in bytes from its start.
const (
	atNext = 0  // in and out: the next page frame
	atEnd  = 8  // in: where to stop
	atMost = 16 // in: the most pages of one run
	// Head is where a program's own memory begins.
	Head = 24
)

// MaxPages is how many struct pages one run reads at most: a run takes about 2 ms in an
// emulated guest. Only a kernel with full preemption interrupts it. MinPages is how many frames
// it passes at least, where there are that many.
const (
	MaxPages = 4096
	MinPages = 512
)

// runLimit bounds a run of a program, and the wait for that of another program to end.
const runLimit = 5 * time.Second

// Errors of a runner.
var (
	ErrBusy = errors.New("the program is at work")
	// ErrEndless says that a run of this program did not end, ErrStuck that an earlier one, of this
	// program or another, has not ended: it holds a processor, and none may join it.
	ErrEndless = fmt.Errorf("a run of the program did not end in %v", runLimit)
	ErrStuck   = errors.New("a run of an earlier program has not ended: no other may begin")
	ErrClosed  = errors.New("the program is in use no more")
	ErrKernel  = errors.New("the program does not know this kernel's pages")
	// ErrContract says that a program does not keep its contract.
	ErrContract = errors.New("the program does not do as its contract says")
)

// Program runs once. It is an eBPF program, but in unit tests.
type Program interface {
	Run() (uint32, error)
	io.Closer
}

// Runner runs one program. It is safe for concurrent use, except what is said to belong to the
// caller of Exclusive.
type Runner struct {
	spans func() ([]Span, error)
	turn  Turn

	mu      sync.Mutex
	running bool // a caller of Exclusive
	inRun   bool // the program; also after its caller has given up
	closed  bool

	// These belong to the caller of Exclusive.
	prog Program
	mem  []byte
	free func() error // of mem
}

// Load makes a map of one entry for a program, with so many bytes, and has load load one that uses
// it. The caller closes the result.
func Load(
	turn Turn, name string, size uint32,
	load func(shared map[string]*ebpf.Map) (*ebpf.Program, error),
) (*Runner, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: name, Type: ebpf.Array, Flags: unix.BPF_F_MMAPABLE,
		KeySize: 4, ValueSize: size, MaxEntries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("make the map %s: %w", name, err)
	}
	defer m.Close() // the program and the mapping keep it
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED
	mem, err := unix.Mmap(m.FD(), 0, int(size), prot, flags)
	if err != nil {
		return nil, fmt.Errorf("map the memory of %s: %w", name, err)
	}
	free := func() error { return unix.Munmap(mem) }
	prog, err := load(map[string]*ebpf.Map{name: m})
	if err != nil {
		return nil, errors.Join(err, free())
	}
	return New(turn, program{prog}, mem, free, readSpans), nil
}

// New returns a runner of a program, with that memory and these page frames. It frees the memory
// when it is closed. Unit tests call it, and Load.
func New(
	turn Turn, prog Program, mem []byte, free func() error, spans func() ([]Span, error),
) *Runner {
	return &Runner{spans: spans, turn: turn, prog: prog, mem: mem, free: free}
}

// program is a loaded one.
type program struct{ *ebpf.Program }

func (p program) Run() (uint32, error) { return p.Program.Run(&ebpf.RunOptions{}) }

// Exclusive calls f if no other call of f is under way and the program is not closed. A call that
// was stopped may have left a run behind: f waits for its end.
func (r *Runner) Exclusive(ctx context.Context, f func() error) error {
	r.mu.Lock()
	switch {
	case r.closed:
		r.mu.Unlock()
		return ErrClosed
	case r.running:
		r.mu.Unlock()
		return ErrBusy
	}
	r.running = true
	r.mu.Unlock()
	err := r.turn.take(ctx)
	if err == nil {
		r.turn.give()
		err = f()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = false
	return errors.Join(err, r.release())
}

// Try has try run the program once, on the guest's first page frames, with clear memory. After an
// error the runner is closed.
func (r *Runner) Try(ctx context.Context, try func(context.Context, Span) error) error {
	err := r.Exclusive(ctx, func() error {
		spans, err := r.spans()
		if err != nil {
			return err
		}
		r.Clear()
		return try(ctx, spans[0])
	})
	if err != nil {
		return errors.Join(fmt.Errorf("try the program: %w", err), r.Close())
	}
	return nil
}

// Close unloads the program, after a run that is under way: it does not wait for that.
func (r *Runner) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.release()
}

// release frees what a closed runner has, once nothing uses it. The caller has r.mu.
func (r *Runner) release() error {
	if !r.closed || r.running || r.inRun {
		return nil
	}
	return errors.Join(r.prog.Close(), r.free())
}

// Spans returns the page frames of the guest's memory. It belongs to the caller of Exclusive, as
// all that follows.
func (r *Runner) Spans() ([]Span, error) { return r.spans() }

// Clear forgets all that the program has left in its memory.
func (r *Runner) Clear() { clear(r.mem) }

// Word returns a word of the program's memory, and Put sets one.
func (r *Runner) Word(at int) uint64 { return binary.NativeEndian.Uint64(r.mem[at:]) }

// Put sets a word of the program's memory.
func (r *Runner) Put(at int, v uint64) { binary.NativeEndian.PutUint64(r.mem[at:], v) }

// Memory returns a part of the program's memory.
func (r *Runner) Memory(from, to int) []byte { return r.mem[from:to] }

// Work is what runs have cost.
type Work struct {
	Runs    uint32
	Longest time.Duration
}

// RunMaxUS returns the longest run in microseconds.
func (w *Work) RunMaxUS() uint32 { return Micros(w.Longest) }

// Micros returns a time in microseconds, or the largest number that fits.
func Micros(d time.Duration) uint32 { return uint32(min(d.Microseconds(), math.MaxUint32)) }

// Step runs the program once, for the next pages of a span. The rest of it is left, and the
// cost is added to w.
func (r *Runner) Step(ctx context.Context, s *Span, w *Work) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := r.turn.take(ctx); err != nil {
		return err
	}
	r.Put(atNext, s.Start)
	r.Put(atEnd, s.End)
	r.Put(atMost, MaxPages)
	ret, took, err := r.run(ctx)
	if err != nil {
		return err
	}
	next := r.Word(atNext)
	switch {
	case ret == 1:
		return ErrKernel
	case ret != 0 || next < min(s.Start+MinPages, s.End):
		return fmt.Errorf("result %d, page %d after %d: %w", ret, next, s.Start, ErrContract)
	}
	s.Start = next
	w.Runs++
	w.Longest = max(w.Longest, took)
	return nil
}

// run runs the program in a goroutine of its own, and gives the turn back when the run ends. It
// does not wait for one that does not.
func (r *Runner) run(ctx context.Context) (uint32, time.Duration, error) {
	type result struct {
		ret  uint32
		took time.Duration
		err  error
	}
	_ = r.setInRun(true) // releases nothing
	done := make(chan result, 1)
	go func() {
		began := time.Now()
		ret, err := r.prog.Run()
		x := result{ret, time.Since(began), err}
		x.err = errors.Join(x.err, r.setInRun(false))
		r.turn.give()
		done <- x
	}()
	late := time.NewTimer(runLimit)
	defer late.Stop()
	select {
	case x := <-done:
		if x.err != nil {
			return 0, 0, fmt.Errorf("run the program: %w", x.err)
		}
		return x.ret, x.took, nil
	case <-late.C:
		return 0, 0, ErrEndless
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
}

func (r *Runner) setInRun(to bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inRun = to
	return r.release()
}
