// SPDX-License-Identifier: Apache-2.0

// Package pageruntest has programs for unit tests, in place of those that run in a kernel. With the
// tag guest it also loads those, on the kernel that a test runs on.
package pageruntest

import "github.com/fbpp-project/fbpp/driver-ebpf/pagerun"

// Where a program finds what it is to do, as in package pagerun.
const (
	atNext = 0
	atEnd  = 8
	atMost = 16
)

// Program visits pages and goes on, but for what its hooks do. Its fields are set before it runs.
type Program struct {
	// Visit is called for the pages of a run, and Result after it. Either may be nil.
	Visit  func(first, n uint64)
	Result func(run int) (uint32, error)

	Runs   int
	Closed int

	r *pagerun.Runner
}

// New returns a runner with so many bytes of memory and these page frames, and its program.
func New(size int, spans ...pagerun.Span) (*pagerun.Runner, *Program) {
	return NewIn(pagerun.NewTurn(), size, spans...)
}

// NewIn is New with a turn that others share.
func NewIn(turn pagerun.Turn, size int, spans ...pagerun.Span) (*pagerun.Runner, *Program) {
	p := new(Program)
	p.r = pagerun.New(turn, p, make([]byte, size), func() error { return nil },
		func() ([]pagerun.Span, error) { return spans, nil })
	return p.r, p
}

// Run implements [pagerun.Program].
func (p *Program) Run() (uint32, error) {
	p.Runs++
	first := p.r.Word(atNext)
	n := min(p.r.Word(atMost), p.r.Word(atEnd)-first)
	p.r.Put(atNext, first+n)
	if p.Visit != nil {
		p.Visit(first, n)
	}
	if p.Result != nil {
		return p.Result(p.Runs)
	}
	return 0, nil
}

// Close implements [pagerun.Program].
func (p *Program) Close() error { p.Closed++; return nil }
