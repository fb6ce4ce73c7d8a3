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

// Message is a message of the agent. Head is the header with its fixed fields, Body the
// records, and Tail the trailer. Head and Tail have at most MaxHead and MaxTail bytes. Body
// may be large. It is a part of the slice that the walker's Records returned, so a transport
// may pass it to the device without a copy.
type Message struct {
	Head []byte
	Body []byte
	Tail []byte
}

// Limits of a message's small parts in bytes.
const (
	MaxHead = protocol.HeaderSize + protocol.ProgramReportSize
	MaxTail = protocol.TrailerSize
)

// Transport carries events to the agent and messages to the device. Its methods, except
// Interrupt, must not be called concurrently. After an error of any method, except one that
// wraps [ErrInterrupted] or [os.ErrDeadlineExceeded], the transport cannot be used any more.
type Transport interface {
	// Receive returns the next event. It waits for at most limit; ok is false if none
	// came. With a limit of 0 it does not wait. See also [Forever].
	Receive(limit time.Duration) (event protocol.Event, ok bool, err error)

	// Introduce returns what HELLO says by this transport. It may change between two HELLOs.
	Introduce(g Guest) Guest

	// KnowsPrograms reads the device's configuration anew, and says whether the device knows
	// the messages about programs [FBPP-PROG-9].
	KnowsPrograms() bool

	// Program returns the event about a program that Receive returned last. Its bytes are
	// valid until the next Receive. The error says that the event is malformed.
	Program() (protocol.ProgramEvent, error)

	// Send passes a message on. It copies Head and Tail, but keeps Body: the caller
	// must not change it until Drain has returned without an error. Send waits for
	// the device if there is no room.
	Send(m Message) error

	// Flush tells the device of what was sent.
	Flush()

	// Drain flushes, and waits until the device has read all messages. After limit
	// it returns [os.ErrDeadlineExceeded], and the transport still uses the bodies.
	Drain(limit time.Duration) error

	// MaxBody returns the largest body of one message in bytes.
	MaxBody() int

	// Interrupt makes Receive return an error that wraps ErrInterrupted. It
	// may be called from any goroutine.
	Interrupt()
}
