// SPDX-License-Identifier: Apache-2.0

package workingset

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
)

// MapName is the map of the contract, which the agent makes for each program.
const MapName = "sample"

// Layout of struct sample in bpf/sampler.bpf.c. What lies between is the program's own.
const (
	atLook   = 24                  // in: which look it is
	atWrong  = 32                  // out: pages whose generation does not exist, in this look
	atRight  = 40                  // out: and those whose does
	atBefore = 80                  // in: what was noted at the first look, at the second
	atNoted  = atBefore + window/8 // out: a bit for each page of the window
	atUnused = atNoted + window/8  // out: a bit for each that is free, at the second look
	mapSize  = atUnused + window/8
)

// The looks. At the first, the program notes what it has to know of a page at the second. At the
// second it notes which pages are hot.
const (
	firstLook  = 1
	secondLook = 2
)

// maxWrong is one page of how many may have a generation that does not exist: some are on their way
// from one list to another. More are where the bits are others than was thought, or where somebody
// has switched generations off.
const maxWrong = 16

// errBits says that what was found is of no use.
var errBits = errors.New("pages have no generations where this kernel should have them")

// window is how many pages the bits are about. The first page of a window is a multiple of it.
const window = protocol.SampledPages

// Sampler looks with one program. It is safe for concurrent use.
type Sampler struct {
	*pagerun.Runner
	age   func(context.Context) error
	touch func() (release func() error, err error) // what will be used that nobody uses now
}

// Load makes the memory for a program, has load load one that uses it, and tries that. It fails
// where the kernel has no generations, or does not let them be aged. The caller closes the result.
func Load(
	ctx context.Context, turn pagerun.Turn,
	load func(shared map[string]*ebpf.Map) (*ebpf.Program, error),
) (*Sampler, error) {
	lists := debugfs()
	if err := lists.check(); err != nil {
		return nil, err
	}
	r, err := pagerun.Load(turn, MapName, mapSize, load)
	if err != nil {
		return nil, err
	}
	s := &Sampler{r, lists.age, touchOwn}
	if err := r.Try(ctx, s.tryOnce); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Sampler) tryOnce(ctx context.Context, all pagerun.Span) error {
	w := all.Until(window)
	s.Put(atLook, firstLook)
	return s.Step(ctx, &w, new(pagerun.Work))
}

// Sample finds which pages were used in an interval from now on, and which are free at its end. It
// calls part with the pages of each window in which there are some, by the first page frame of the
// window; the bits are valid until it returns. It ends when ctx does, with its cause, and with an
// error of part.
func (s *Sampler) Sample(
	ctx context.Context, interval time.Duration, part func(first uint64, hot, free []byte) error,
) (work pagerun.Work, err error) {
	err = s.Exclusive(ctx, func() error {
		spans, err := s.Spans()
		if err != nil {
			return err
		}
		over := time.NewTimer(interval)
		defer over.Stop()
		if err := s.age(ctx); err != nil {
			return fmt.Errorf("age the pages: %w", err)
		}
		noted := make(notes)
		if err := s.look(ctx, firstLook, spans, noted, &work, noted.keep); err != nil {
			return err
		}
		select {
		case <-over.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		release, err := s.touch()
		if err != nil { // the sample is good without these
			release = func() error { return nil }
		}
		if err := errors.Join(s.age(ctx), release()); err != nil {
			return fmt.Errorf("age the pages again: %w", err)
		}
		return s.look(ctx, secondLook, spans, noted, &work, part)
	})
	return work, err
}

// notes are the bits of the windows in which there are some, by their first page frame. Those of
// a guest of 1 TiB have 32 MiB at most.
type notes map[uint64][window / 8]byte

// keep adds bits to those of a window, which may be of two spans.
func (n notes) keep(at uint64, bits, _ []byte) error {
	all := n[at]
	for i, b := range bits {
		all[i] |= b
	}
	n[at] = all
	return nil
}

// look goes through the windows, with what was noted before, and calls part with what is noted
// then.
func (s *Sampler) look(
	ctx context.Context, look uint64, spans []pagerun.Span, noted notes, work *pagerun.Work,
	part func(first uint64, bits, free []byte) error,
) error {
	s.Clear()
	s.Put(atLook, look)
	bits, free := s.Memory(atNoted, atUnused), s.Memory(atUnused, mapSize)
	for _, rest := range spans {
		for rest.Start < rest.End {
			w := rest.Until(window)
			at := w.Start &^ (window - 1)
			before := noted[at]
			copy(s.Memory(atBefore, atNoted), before[:])
			clear(bits)
			clear(free)
			for w.Start < w.End {
				if err := s.Step(ctx, &w, work); err != nil {
					return err
				}
			}
			if rest.Start = w.Start; !anySet(bits) && !anySet(free) {
				continue
			}
			if err := part(at, bits, free); err != nil {
				return err
			}
		}
	}
	if wrong, right := s.Word(atWrong), s.Word(atRight); wrong > right/maxWrong {
		return fmt.Errorf("%w: %d have, and %d have not", errBits, right, wrong)
	}
	return nil
}

func anySet(bits []byte) bool {
	for _, b := range bits {
		if b != 0 {
			return true
		}
	}
	return false
}
