// SPDX-License-Identifier: Apache-2.0

// Package source says what a source of page classes is: something that knows,
// when a migration begins, what the guest does with its memory. The guest's own
// driver is one; another may look at the guest from the host.
//
// The device asks its sources in turn and knows nothing else of them. A source
// knows no other source, and neither QEMU nor the hint window.
package source

import (
	"context"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// Source answers requests, one at a time.
type Source interface {
	// Name is how QEMU and operators see the source: at most 16 of the
	// characters a to z, 0 to 9 and '-'.
	Name() string

	// Ask finds out what is free and adds it to f. It returns nil when the
	// findings are whole, or a [Failure], after which nothing in f counts; any
	// other error counts as one with AnswerInternal. It returns promptly when
	// ctx ends, and does not touch f afterwards. The deadline of ctx is when the
	// answer has to be there.
	Ask(ctx context.Context, r Request, f *Findings) error
}

// Request is what a source may need to answer.
type Request struct {
	// Memory is the guest's. It is valid until Ask returns.
	Memory *vhostuser.Memory

	// Paused says that the guest did not run when the request was made. It may
	// run again at any time.
	Paused bool

	// Written tells which pages of the given ranges were written since the dirty
	// log was armed, before the request: a bit for each 4 KiB page in the order of
	// the ranges, which are sorted, disjoint and within Memory. A page that has
	// not been written until the answer was constant since the request, however
	// and whenever it was read. Nil where the frontend cannot tell. Call it again
	// only when it has returned an answer: after an error there is no more.
	Written func(ctx context.Context, pages []freeset.Range) ([]byte, error)
}

// Findings are what a source found out. Pages that it says nothing of are in
// use. The device gives the findings empty, and reads them after Ask.
type Findings struct {
	// Free has the pages whose contents nobody needs: every one of them was
	// free at some instant since the request, and all writes since then reach
	// the destination. An error here costs data, so this is no place for guesses.
	Free *freeset.Set

	// Truncated says that some free memory is not in Free.
	Truncated bool

	// Items counts what the source went through, in units of its own.
	Items uint64

	// Phases are the parts of the time from the request to the return of Ask,
	// one after the other. Details are other figures for the operator. A source
	// chooses the names of both, under the rule of Source.Name.
	Phases  []Phase
	Details []Detail
}

// Phase is a named part of an exchange.
type Phase struct {
	Name string
	Time time.Duration
}

// Detail is a named figure, whose unit is in its name.
type Detail struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// Failure says why a source has no findings.
type Failure struct {
	Status protocol.AnswerStatus // not AnswerOK
	Why    string                // one line for the operator

	// Final says that no other source may be asked either: what the guest does
	// with its memory forbids to leave any of it out.
	Final bool
}

// Failf makes a Failure that is not final.
func Failf(status protocol.AnswerStatus, format string, args ...any) *Failure {
	return &Failure{Status: status, Why: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (f *Failure) Error() string { return fmt.Sprintf("%v: %s", f.Status, f.Why) }
