// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// ErrInterrupted is wrapped by what Receive returns after Interrupt.
var ErrInterrupted = errors.New("interrupted")

// Forever makes Receive wait without a limit.
const Forever time.Duration = -1

// Message is what the agent sends: a header and what belongs to it, records,
// and a trailer. Head and Tail have at most MaxHead and MaxTail bytes. Body may
// be large, and is a part of what the walker's Records returned: a transport may
// pass it on as it lies.
type Message struct {
	Head []byte
	Body []byte
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
