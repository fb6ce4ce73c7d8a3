// SPDX-License-Identifier: Apache-2.0

package localise

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/placement"
)

// Options say where to, and how fast.
type Options struct {
	Node int
	// Bandwidth bounds what is moved in a second, in bytes. 0 is no bound.
	Bandwidth uint64
	// Progress is called now and then. It may be nil.
	Progress func(Result)
}

// Counts are sizes in bytes, of memory that is in no hole of its file.
type Counts struct {
	Moved uint64 `json:"moved"`
	There uint64 `json:"there"` // it was at the node already
	// Left is what Linux could not move: it is pinned, as for a device that is passed through.
	Left uint64 `json:"left"`
}

func (c *Counts) add(o Counts) {
	c.Moved += o.Moved
	c.There += o.There
	c.Left += o.Left
}

// Result is what was done so far, by class.
type Result struct {
	Node    int                        `json:"node"`
	Classes map[placement.Class]Counts `json:"classes"`
	Free    uint64                     `json:"free"` // bytes that stay where they are
	// OnDisk are bytes in files on a disk, whose pages have no node to keep to.
	OnDisk  uint64  `json:"on_disk"`
	Seconds float64 `json:"seconds"`
	// Why says why nothing was known of what the guest uses its memory for.
	Why string `json:"why,omitempty"`
}

// Total returns the sum of all classes.
func (r *Result) Total() (sum Counts) {
	for _, c := range r.Classes {
		sum.add(c)
	}
	return sum
}

// chunk is how much is moved at once, in bytes; a huge page is moved as a whole.
const chunk = 2 << 20

// tick is the least time between two calls of Options.Progress, and recheck that between two looks
// whether the VM still has its memory.
const (
	tick    = 5 * time.Second
	recheck = time.Second
)

// file is guest memory in a file.
type file interface {
	// prefer has memory that is allocated from now on come from a node.
	prefer(node int) error
	// same fails when it is not the VM's memory any more.
	same() error
	// bring moves what is there of a range of the file to a node. The range is a multiple of
	// the size of its pages. An error may come with what was moved before.
	bring(offset, length uint64, node int) (Counts, error)
	// pageSize is in bytes.
	pageSize() uint64
	close()
}

// VM is a virtual machine: the process that has its memory's files open, as the kernel says, and
// what that process says of them.
type VM struct {
	PID    int
	Memory *placement.Memory
	Ranges []placement.Ranges
}

// Run moves a VM's memory, class after class. It needs root. It returns what was done also with an
// error, and when ctx ends: whatever was not moved stays where it is.
func Run(ctx context.Context, vm VM, o Options) (*Result, error) {
	j := newJob(o, vm.Memory)
	defer j.close()
	for _, r := range vm.Memory.Regions {
		f, err := open(vm.PID, r)
		if errors.Is(err, errOnDisk) {
			j.result.OnDisk += r.Length
			continue
		}
		if err != nil {
			return j.done(), err
		}
		j.pieces = append(j.pieces, piece{r, f})
	}
	if len(j.pieces) == 0 {
		return j.done(), errOnDisk
	}
	return j.run(ctx, vm.Ranges)
}

// piece is a region of guest memory, whose file is mapped from the region's offset on.
type piece struct {
	placement.Region
	file
}

type job struct {
	Options
	pieces  []piece
	begun   time.Time
	told    time.Time
	checked time.Time
	due     time.Time // when the bandwidth allows for more
	result  Result
}

func newJob(o Options, m *placement.Memory) *job {
	now := time.Now()
	return &job{
		Options: o, begun: now, told: now, checked: now, due: now,
		result: Result{
			Node: o.Node, Free: m.Free, Why: m.Why, Classes: make(map[placement.Class]Counts),
		},
	}
}

func (j *job) close() {
	for _, p := range j.pieces {
		p.close()
	}
}

func (j *job) done() *Result {
	j.result.Seconds = time.Since(j.begun).Seconds()
	return &j.result
}

func (j *job) run(ctx context.Context, all []placement.Ranges) (*Result, error) {
	for _, p := range j.pieces {
		if err := p.prefer(j.Node); err != nil {
			return j.done(), err
		}
	}
	for _, of := range all {
		for _, r := range of.Ranges {
			if ctx.Err() != nil {
				return j.done(), j.ended(ctx)
			}
			if err := j.move(ctx, of.Class, r); err != nil {
				return j.done(), err
			}
		}
	}
	return j.done(), nil
}

// move moves a range of one class, which may lie in several regions.
func (j *job) move(ctx context.Context, class placement.Class, r freeset.Range) error {
	for _, p := range j.pieces {
		first, end := max(r.GPA, p.GPA), min(r.End(), p.GPA+p.Length)
		if first >= end {
			continue
		}
		// A huge page belongs to whoever comes first.
		size := p.pageSize()
		at, stop := (first-p.GPA)/size*size, (end-p.GPA+size-1)/size*size
		for at < stop {
			if ctx.Err() != nil {
				return j.ended(ctx)
			}
			n := min(max(chunk, size), stop-at)
			c, err := p.bring(at, n, j.Node)
			sum := j.result.Classes[class]
			sum.add(c)
			j.result.Classes[class] = sum
			if err != nil {
				return err
			}
			at += n
			if err := j.pace(ctx, c.Moved); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *job) ended(ctx context.Context) error {
	return fmt.Errorf("move memory to node %d: %w", j.Node, context.Cause(ctx))
}

// pace tells of the progress, looks whether the VM is still there, and waits as long as the
// bandwidth wants.
func (j *job) pace(ctx context.Context, moved uint64) error {
	now := time.Now()
	if j.Progress != nil && now.Sub(j.told) >= tick {
		j.told = now
		j.Progress(*j.done())
	}
	if now.Sub(j.checked) >= recheck {
		j.checked = now
		for _, p := range j.pieces {
			if err := p.same(); err != nil {
				return err
			}
		}
	}
	if j.Bandwidth == 0 {
		return nil
	}
	if j.due.Before(now) {
		j.due = now // time in which nothing was moved does not count
	}
	seconds := float64(moved) / float64(j.Bandwidth)
	j.due = j.due.Add(time.Duration(seconds * float64(time.Second)))
	select {
	case <-time.After(time.Until(j.due)):
		return nil
	case <-ctx.Done():
		return j.ended(ctx)
	}
}

// Errors about the files of guest memory.
var (
	errAnotherFile = errors.New("QEMU has ended, or has changed the guest's memory meanwhile; " +
		"if the machine still runs here, try again")
	errOnDisk = errors.New("guest memory is in a file on a disk, whose pages have no node to keep " +
		"to: use memory-backend-memfd, or a file in tmpfs or hugetlbfs")
)
