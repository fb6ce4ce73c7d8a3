// SPDX-License-Identifier: Apache-2.0

package pagecensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// MapName is the map of the contract, which the agent makes for each program.
const MapName = "census"

// Layout of struct census in bpf/census.bpf.c.
const (
	atNext   = 0  // in and out: the next page frame
	atEnd    = 8  // in: where to stop
	atMost   = 16 // in: the most pages of one run
	atCounts = 40 // out: by class, and count. What lies before is the program's own
	mapSize  = atCounts + protocol.CensusClasses*protocol.CensusCounts*8
)

// maxPages is how many struct pages one run reads at most: a run takes about 2 ms in an
// emulated guest. Only a kernel with full preemption interrupts it. minPages is how many frames
// it passes at least, where there are that many.
const (
	maxPages = 4096
	minPages = 512
)

// runLimit bounds a run of a program, and the wait for that of another program to end.
const runLimit = 5 * time.Second

// Errors of a count.
var (
	ErrBusy = errors.New("a count is under way")
	// ErrEndless says that a run of this program did not end, ErrStuck that an earlier one, of this
	// program or another, has not ended: it holds a processor, and none may join it.
	ErrEndless = fmt.Errorf("a run of the program did not end in %v", runLimit)
	ErrStuck   = errors.New("a run of an earlier census has not ended: no other may begin")
	ErrClosed  = errors.New("the program is in use no more")
	ErrKernel  = errors.New("the program does not know this kernel's pages")
	// ErrContract says that a program does not keep its contract.
	ErrContract = errors.New("the program does not count as its contract says")
)

// runner runs a program once. Unit tests have one of their own.
type runner interface {
	run() (uint32, error)
	Close() error
}

// Turn lets one program run at a time. All counters of an owner share one. A run that does not
// end keeps it: so a guest loses one processor to such programs, and no more.
type Turn struct{ taken chan struct{} }

// NewTurn returns a turn that is free.
func NewTurn() Turn { return Turn{make(chan struct{}, 1)} }

// take waits for the turn.
func (t Turn) take(ctx context.Context) error {
	late := time.NewTimer(runLimit)
	defer late.Stop()
	select {
	case t.taken <- struct{}{}:
		return nil
	case <-late.C:
		return ErrStuck
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t Turn) give() { <-t.taken }

// Counter counts with one program. It is safe for concurrent use.
type Counter struct {
	spans func() ([]span, error)
	turn  Turn

	mu      sync.Mutex
	running bool // a count, or the trial
	inRun   bool // the program; also after its count has given up
	closed  bool

	// These belong to the count that runs.
	prog runner
	mem  []byte
	free func() error // of mem
}

// Load makes the memory for a program, has load load one that uses it, and tries that. The
// caller closes the result.
func Load(
	ctx context.Context, turn Turn,
	load func(shared map[string]*ebpf.Map) (*ebpf.Program, error),
) (*Counter, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: MapName, Type: ebpf.Array, Flags: unix.BPF_F_MMAPABLE,
		KeySize: 4, ValueSize: mapSize, MaxEntries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("make the map of a census: %w", err)
	}
	defer m.Close() // the program and the mapping keep it
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED
	mem, err := unix.Mmap(m.FD(), 0, mapSize, prot, flags)
	if err != nil {
		return nil, fmt.Errorf("map the memory of a census: %w", err)
	}
	c := &Counter{
		spans: readSpans, turn: turn, mem: mem, free: func() error { return unix.Munmap(mem) },
	}
	prog, err := load(map[string]*ebpf.Map{MapName: m})
	if err != nil {
		return nil, errors.Join(err, c.free())
	}
	c.prog = program{prog}
	if err := c.try(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("try the program: %w", err), c.Close())
	}
	return c, nil
}

// program is a loaded one.
type program struct{ *ebpf.Program }

func (p program) run() (uint32, error) { return p.Run(&ebpf.RunOptions{}) }

// try runs the program once.
func (c *Counter) try(ctx context.Context) error {
	return c.exclusive(ctx, func() error { return c.tryOnce(ctx) })
}

func (c *Counter) tryOnce(ctx context.Context) error {
	spans, err := c.spans()
	if err != nil {
		return err
	}
	c.begin()
	if _, err := c.step(ctx, spans[0]); err != nil {
		return err
	}
	_, err = c.read(1, spans[0].end-spans[0].start)
	return err
}

// exclusive calls f if no count is under way and the program is not closed. A count that was
// stopped may have left a run behind: f waits for its end.
func (c *Counter) exclusive(ctx context.Context, f func() error) error {
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return ErrClosed
	case c.running:
		c.mu.Unlock()
		return ErrBusy
	}
	c.running = true
	c.mu.Unlock()
	err := c.turn.take(ctx)
	if err == nil {
		c.turn.give()
		err = f()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
	return errors.Join(err, c.release())
}

// Close unloads the program, after a run that is under way: it does not wait for that.
func (c *Counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return c.release()
}

// release frees what a closed counter has, once nothing uses it. The caller has c.mu.
func (c *Counter) release() error {
	if !c.closed || c.running || c.inRun {
		return nil
	}
	return errors.Join(c.prog.Close(), c.free())
}

// Count counts the guest's pages. It ends when ctx does, with its cause, also if a run of the
// program does not end. The caller sets what belongs to the question.
func (c *Counter) Count(ctx context.Context) (report protocol.CensusReport, err error) {
	err = c.exclusive(ctx, func() error {
		report, err = c.count(ctx)
		return err
	})
	return report, err
}

func (c *Counter) count(ctx context.Context) (protocol.CensusReport, error) {
	spans, err := c.spans()
	if err != nil {
		return protocol.CensusReport{}, err
	}
	var runs uint32
	var longest time.Duration
	var all uint64
	begun := time.Now()
	c.begin()
	for _, s := range spans {
		all += s.end - s.start
		for s.start < s.end {
			if ctx.Err() != nil {
				return protocol.CensusReport{}, context.Cause(ctx)
			}
			took, err := c.step(ctx, s)
			if err != nil {
				return protocol.CensusReport{}, err
			}
			longest = max(longest, took)
			runs++
			s.start = c.u64(atNext)
		}
	}
	report, err := c.read(1, all)
	if err != nil {
		return protocol.CensusReport{}, err
	}
	report.Runs = runs
	report.TookUS, report.RunMaxUS = micros(time.Since(begun)), micros(longest)
	return report, nil
}

func micros(d time.Duration) uint32 { return uint32(min(d.Microseconds(), math.MaxUint32)) }

// begin forgets the counts, and all that the program has left in its memory.
func (c *Counter) begin() { clear(c.mem) }

// step runs the program for the next pages of a span. It returns how long that took.
func (c *Counter) step(ctx context.Context, s span) (time.Duration, error) {
	if err := c.turn.take(ctx); err != nil {
		return 0, err
	}
	c.put(atNext, s.start)
	c.put(atEnd, s.end)
	c.put(atMost, maxPages)
	ret, took, err := c.run(ctx)
	if err != nil {
		return 0, err
	}
	switch next := c.u64(atNext); {
	case ret == 1:
		return 0, ErrKernel
	case ret != 0 || next < min(s.start+minPages, s.end):
		return 0, fmt.Errorf("result %d, page %d after %d: %w", ret, next, s.start, ErrContract)
	}
	return took, nil
}

// run runs the program in a goroutine of its own, and gives the turn back when the run ends. It
// does not wait for one that does not.
func (c *Counter) run(ctx context.Context) (uint32, time.Duration, error) {
	type result struct {
		ret  uint32
		took time.Duration
		err  error
	}
	_ = c.setInRun(true) // releases nothing
	done := make(chan result, 1)
	go func() {
		began := time.Now()
		ret, err := c.prog.run()
		r := result{ret, time.Since(began), err}
		r.err = errors.Join(r.err, c.setInRun(false))
		c.turn.give()
		done <- r
	}()
	late := time.NewTimer(runLimit)
	defer late.Stop()
	select {
	case r := <-done:
		if r.err != nil {
			return 0, 0, fmt.Errorf("run the program: %w", r.err)
		}
		return r.ret, r.took, nil
	case <-late.C:
		return 0, 0, ErrEndless
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
}

func (c *Counter) setInRun(to bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inRun = to
	return c.release()
}

// read returns the counts. The device takes none that make no sense.
func (c *Counter) read(least, most uint64) (report protocol.CensusReport, err error) {
	at, sum := atCounts, uint64(0)
	for class := range report.Counts {
		counts := &report.Counts[class]
		for i := range counts {
			counts[i] = c.u64(at)
			at += 8
			if counts[i] > min(counts[protocol.CensusPages], most) {
				return report, fmt.Errorf("count %d of class %d is %d: %w", i, class, counts[i],
					ErrContract)
			}
		}
		sum += counts[protocol.CensusPages]
	}
	if sum < least || sum > most {
		return report, fmt.Errorf("%d pages of %d: %w", sum, most, ErrContract)
	}
	return report, nil
}

func (c *Counter) u64(at int) uint64    { return binary.NativeEndian.Uint64(c.mem[at:]) }
func (c *Counter) put(at int, v uint64) { binary.NativeEndian.PutUint64(c.mem[at:], v) }
