// SPDX-License-Identifier: Apache-2.0

// Package agent is the guest's side of virtio-fbpp: it says hello, waits for
// the device to ask, takes a snapshot of the free memory and reports it.
// docs/spec.md specifies the exchange; names in brackets are its sentences.
//
// The loop knows neither its transport nor how the snapshot is taken.
package agent

import (
	"errors"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
	"github.com/fbpp-project/fbpp/driver-ebpf/freepages"
)

// ErrInterrupted is wrapped by what Receive returns after Interrupt.
var ErrInterrupted = errors.New("interrupted")

// Forever makes Receive wait without a limit.
const Forever time.Duration = -1

// Message is what the agent sends: a header and what belongs to it, records,
// and a trailer. Body may be large; Head and Tail have at most MaxHead and
// MaxTail bytes.
type Message struct {
	Head []byte
	Body dma.Slice
	Tail []byte
}

// Limits of a message's small parts in bytes.
const (
	MaxHead = protocol.HeaderSize + protocol.HelloSize
	MaxTail = protocol.TrailerSize
)

// Transport carries events to the agent and messages to the device. Except for
// Interrupt it is for one goroutine at a time. An error of any method but
// Interrupt means that the transport is of no use any more.
type Transport interface {
	// Receive returns the next event. It waits at most that long; ok is false
	// when none came. A limit of 0 looks without waiting.
	Receive(limit time.Duration) (event protocol.Event, ok bool, err error)

	// Send passes a message on. It copies Head and Tail. Body is the
	// transport's until Drain. Send waits for room as long as the device is
	// there, but no longer than the limit given to Drain.
	Send(m Message) error

	// Flush tells the device of what was sent.
	Flush()

	// Drain flushes and waits until the device has read all messages, at most
	// that long: past the limit it returns [os.ErrDeadlineExceeded], and the
	// bodies are still the transport's.
	Drain(limit time.Duration) error

	// MaxBody returns the largest body of one message in bytes.
	MaxBody() int

	// Interrupt makes Receive return an error that wraps ErrInterrupted. It
	// may be called from any goroutine.
	Interrupt()
}

// Walker takes snapshots; [freepages.Snapshot] is one.
type Walker interface {
	Begin()
	Step(freepages.Budget) (freepages.State, error)
	Records() dma.Slice
	Release()
	Stats() freepages.Stats
}

var _ Walker = (*freepages.Snapshot)(nil)
