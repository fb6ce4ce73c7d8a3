// SPDX-License-Identifier: Apache-2.0

// Package source is the interface between the device and its sources of page
// classes. A source finds out, when a migration begins, what the guest uses its
// memory for. The guest's own driver is a source (package driver); the observer,
// which reads guest memory from the host, is another (package observer).
//
// The device asks its sources in order and knows only this interface. A source
// knows neither the other sources nor QEMU nor the hint window.
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
	// findings are complete, or else a [Failure]; any other error counts as a
	// Failure with AnswerInternal. The device ignores f after an error. Ask returns
	// promptly when ctx ends, and does not touch f after it has returned. The
	// deadline of ctx is when the answer is due.
	Ask(ctx context.Context, r Request, f *Findings) error
}

// Request is what a source may need to answer.
type Request struct {
	// Memory is the guest's memory, or nil before the first memory table. It is
	// valid until Ask returns.
	Memory *vhostuser.Memory

	// Paused says that the guest did not run when the request was made. It may
	// run again at any time.
	Paused bool

	// Drop is how much cold cache the guest shall drop before it answers. Only the guest's
	// driver can have it done.
	Drop Drop

	// Written tells which pages of the given ranges were written since the dirty
	// log was armed, which was before the request. The ranges are sorted, disjoint
	// and within Memory. The result has a bit for each 4 KiB page, in the order of
	// the ranges. A page whose bit is clear has not changed from the request until
	// the answer, so what was read of it in between is consistent. Written is nil
	// where the frontend cannot tell. After an error, do not call it again.
	Written func(ctx context.Context, pages []freeset.Range) ([]byte, error)
}

// Drop bounds how much cold page cache the guest drops, in bytes and in time. The zero value
// asks for none.
type Drop struct {
	Bytes uint64
	Time  time.Duration
}

// Findings are what a source found out. Pages that are not in Free count as in
// use. The device passes the findings empty, and reads them after Ask.
type Findings struct {
	// Free has the pages whose contents nobody needs. Each of them was free at
	// some instant since the request, and all writes since then reach the
	// destination. A page that is here by mistake loses data: add only what is
	// proven.
	Free *freeset.Set

	// Truncated says that some free memory is not in Free.
	Truncated bool

	// Order is nil where nobody wants one. A source that is no [Orderer] leaves it as
	// it is.
	Order *Order

	// Dropped is how many bytes of cache the guest says it dropped for the request.
	Dropped uint64

	// Items counts what the source went through, in its own unit.
	Items uint64

	// Phases are consecutive parts of the time from the request to the return of
	// Ask. Details are other figures for the operator. A source chooses the names
	// of both, by the rule of Source.Name.
	Phases  []Phase
	Details []Detail
}

// Order says in which order memory is best sent. It need not be exact, for all of it is
// sent. Sets may overlap: free memory is in no order, and Hot wins over Cold.
type Order struct {
	Hot  *freeset.Set // first: what the guest is about to use
	Cold *freeset.Set // last: what it may never use again. Nil where it is not wanted
	From string       // name of the source that knew it; empty while there is no order
}

// Orderer is a source that finds an order, too. Its Ask fills Findings.Order.
type Orderer interface {
	Source

	// FindOrder finds only an order. It returns promptly when ctx ends, and does not
	// touch o after it has returned. After an error o is ignored.
	FindOrder(ctx context.Context, r Request, o *Order) error
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

	// Final says that no other source may be asked either: the guest relies on the
	// contents of its free pages.
	Final bool
}

// Failf returns a Failure that is not final.
func Failf(status protocol.AnswerStatus, format string, args ...any) *Failure {
	return &Failure{Status: status, Why: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (f *Failure) Error() string { return fmt.Sprintf("%v: %s", f.Status, f.Why) }
