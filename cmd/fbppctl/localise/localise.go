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
	// Left is what Linux could not move: it is pinned, as for a device that is passed through,
	// or the node has no room.
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
	Seconds float64                    `json:"seconds"`
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

// tick is the least time between two calls of Options.Progress.
const tick = 5 * time.Second

// file is guest memory in a file.
type file interface {
	// prefer has memory that is allocated from now on come from a node.
	prefer(node int) error
	// bring moves what is there of a range of the file to a node. The range is a multiple of
	// the size of its pages.
	bring(offset, length uint64, node int) (Counts, error)
	// pageSize is in bytes.
	pageSize() uint64
	close()
}

// Run moves a VM's memory, class after class. It needs root. It returns what was done also with an
// error, and when ctx ends: whatever was not moved stays where it is.
func Run(
	ctx context.Context, m *placement.Memory, all []placement.Ranges, o Options,
) (*Result, error) {
	j := &job{Options: o, begun: time.Now(), told: time.Now()}
	j.result = Result{
		Node: o.Node, Free: m.Free, Why: m.Why, Classes: make(map[placement.Class]Counts),
	}
	defer j.close()
	for _, r := range m.Regions {
		f, err := open(m.PID, r)
		if err != nil {
			return j.done(), err
		}
		j.pieces = append(j.pieces, piece{r, f})
	}
	return j.run(ctx, all)
}

// piece is a region of guest memory, whose file is mapped from the region's offset on.
type piece struct {
	placement.Region
	file
}

type job struct {
	Options
	pieces []piece
	begun  time.Time
	told   time.Time
	moved  uint64 // bytes
	result Result
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
				return fmt.Errorf("move memory to node %d: %w", j.Node, context.Cause(ctx))
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

// pace tells of the progress, and waits as long as the bandwidth wants.
func (j *job) pace(ctx context.Context, moved uint64) error {
	if j.Progress != nil && time.Since(j.told) >= tick {
		j.told = time.Now()
		j.Progress(*j.done())
	}
	j.moved += moved
	if j.Bandwidth == 0 {
		return nil
	}
	due := time.Duration(float64(j.moved) / float64(j.Bandwidth) * float64(time.Second))
	select {
	case <-time.After(due - time.Since(j.begun)):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("move memory to node %d: %w", j.Node, context.Cause(ctx))
	}
}

// errAnotherFile says that fbppd has no such file any more.
var errAnotherFile = errors.New("QEMU has changed the guest's memory meanwhile: try again")
