// SPDX-License-Identifier: Apache-2.0

package pagecensus

import (
	"context"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
)

// MapName is the map of the contract, which the agent makes for each program.
const MapName = "census"

// Layout of struct census in bpf/census.bpf.c. What lies between is the program's own.
const (
	atCounts = 40 // out: by class, and count
	mapSize  = atCounts + protocol.CensusClasses*protocol.CensusCounts*8
)

// Counter counts with one program. It is safe for concurrent use.
type Counter struct{ *pagerun.Runner }

// Load makes the memory for a program, has load load one that uses it, and tries that. The
// caller closes the result.
func Load(
	ctx context.Context, turn pagerun.Turn,
	load func(shared map[string]*ebpf.Map) (*ebpf.Program, error),
) (*Counter, error) {
	r, err := pagerun.Load(turn, MapName, mapSize, load)
	if err != nil {
		return nil, err
	}
	c := &Counter{r}
	if err := r.Try(ctx, c.tryOnce); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Counter) tryOnce(ctx context.Context, s pagerun.Span) error {
	first := s
	if err := c.Step(ctx, &s, new(pagerun.Work)); err != nil {
		return err
	}
	_, err := c.read(1, first.End-first.Start)
	return err
}

// Count counts the guest's pages. It ends when ctx does, with its cause, also if a run of the
// program does not end. The caller sets what belongs to the question.
func (c *Counter) Count(ctx context.Context) (report protocol.CensusReport, err error) {
	err = c.Exclusive(ctx, func() error {
		report, err = c.count(ctx)
		return err
	})
	return report, err
}

func (c *Counter) count(ctx context.Context) (protocol.CensusReport, error) {
	spans, err := c.Spans()
	if err != nil {
		return protocol.CensusReport{}, err
	}
	var work pagerun.Work
	var all uint64
	begun := time.Now()
	c.Clear()
	for _, s := range spans {
		all += s.End - s.Start
		for s.Start < s.End {
			if err := c.Step(ctx, &s, &work); err != nil {
				return protocol.CensusReport{}, err
			}
		}
	}
	report, err := c.read(1, all)
	if err != nil {
		return protocol.CensusReport{}, err
	}
	report.Runs, report.RunMaxUS = work.Runs, work.RunMaxUS()
	report.TookUS = pagerun.Micros(time.Since(begun))
	return report, nil
}

// read returns the counts. The device takes none that make no sense.
func (c *Counter) read(least, most uint64) (report protocol.CensusReport, err error) {
	at, sum := atCounts, uint64(0)
	for class := range report.Counts {
		counts := &report.Counts[class]
		for i := range counts {
			counts[i] = c.Word(at)
			at += 8
			if counts[i] > min(counts[protocol.CensusPages], most) {
				return report, fmt.Errorf("count %d of class %d is %d: %w", i, class, counts[i],
					pagerun.ErrContract)
			}
		}
		sum += counts[protocol.CensusPages]
	}
	if sum < least || sum > most {
		return report, fmt.Errorf("%d pages of %d: %w", sum, most, pagerun.ErrContract)
	}
	return report, nil
}
