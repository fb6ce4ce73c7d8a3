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
// emulated guest, and can be preempted.
const maxPages = 4096

// tryLimit bounds the first run of a program.
const tryLimit = 5 * time.Second

// Errors of a count.
var (
	ErrBusy   = errors.New("a count is under way")
	ErrClosed = errors.New("the program is in use no more")
	ErrKernel = errors.New("the program does not know this kernel's pages")
	// ErrContract says that a program does not keep its contract.
	ErrContract = errors.New("the program does not count as its contract says")
)

// runner runs a program once. Unit tests have one of their own.
type runner interface {
	run() (uint32, error)
	Close() error
}

// Counter counts with one program. It is safe for concurrent use.
type Counter struct {
	spans func() ([]span, error)

	mu      sync.Mutex
	running bool
	closed  bool

	// These belong to the count that runs.
	prog runner
	mem  []byte
	free func() error // of mem
}

// Load makes the memory for a program, has load load one that uses it, and tries that. The
// caller closes the result.
func Load(
	ctx context.Context, load func(shared map[string]*ebpf.Map) (*ebpf.Program, error),
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
	c := &Counter{spans: readSpans, mem: mem, free: func() error { return unix.Munmap(mem) }}
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

// try runs the program once. A program that does not end must not keep the caller.
func (c *Counter) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.exclusive(func() error { return c.tryOnce() }) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("its first run does not end: %w", ctx.Err())
	}
}

func (c *Counter) tryOnce() error {
	spans, err := c.spans()
	if err != nil {
		return err
	}
	c.begin()
	if err := c.step(spans[0]); err != nil {
		return err
	}
	_, err = c.read(1, spans[0].end-spans[0].start)
	return err
}

// exclusive calls f if the program neither runs nor is closed. Close waits for it.
func (c *Counter) exclusive(f func() error) error {
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
	err := f()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
	if c.closed {
		err = errors.Join(err, c.release())
	}
	return err
}

// Close unloads the program, after a count that is under way: it does not wait for that.
func (c *Counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.running {
		return nil
	}
	return c.release()
}

func (c *Counter) release() error { return errors.Join(c.prog.Close(), c.free()) }

// Count counts the guest's pages. It ends between two runs of the program when ctx does. The
// caller sets what belongs to the question.
func (c *Counter) Count(ctx context.Context) (report protocol.CensusReport, err error) {
	err = c.exclusive(func() error {
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
			began := time.Now()
			if err := c.step(s); err != nil {
				return protocol.CensusReport{}, err
			}
			longest = max(longest, time.Since(began))
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

// step runs the program for the next pages of a span.
func (c *Counter) step(s span) error {
	c.put(atNext, s.start)
	c.put(atEnd, s.end)
	c.put(atMost, maxPages)
	ret, err := c.prog.run()
	switch next := c.u64(atNext); {
	case err != nil:
		return fmt.Errorf("run the program: %w", err)
	case ret == 1:
		return ErrKernel
	case ret != 0 || next <= s.start:
		return fmt.Errorf("result %d, page %d after %d: %w", ret, next, s.start, ErrContract)
	}
	return nil
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
