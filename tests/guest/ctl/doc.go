// SPDX-License-Identifier: Apache-2.0

// Package ctl is the order channel between a test on the host and /init in its
// guest: one JSON object per line over a serial port. Every kernel has a driver
// for such a port, and every migration carries it along.
//
// The host sends requests. The guest answers each with a reply of the same id, in any
// order, so that a long command does not delay a short one. When it has booted, the
// guest sends one reply with id 0, without a request. A line that is not JSON is noise
// of the port, and skipped.
//
// A character that is in the port while the guest moves to another QEMU is lost. So a
// test must have no request open when a migration ends, and uses a new [Client] at the
// destination.
package ctl

// Op names what a request asks for.
type Op string

// The operations.
const (
	OpPing   Op = "ping"   // answer, nothing else
	OpRun    Op = "run"    // run Args to its end
	OpStart  Op = "start"  // start Args in the background as Name
	OpTell   Op = "tell"   // write Line to Name's input, answer with its next line of output
	OpSignal Op = "signal" // send Signal to Name
	OpOutput Op = "output" // return the output of Name so far, without answers to OpTell
	OpWait   Op = "wait"   // wait for Name to end, and forget it
)

// Request is an order of the host.
type Request struct {
	ID     uint64   `json:"id"`
	Op     Op       `json:"op"`
	Name   string   `json:"name,omitempty"`
	Args   []string `json:"args,omitempty"`
	Env    []string `json:"env,omitempty"`
	Line   string   `json:"line,omitempty"`
	Signal int      `json:"signal,omitempty"`
}

// Reply is the guest's answer.
type Reply struct {
	ID     uint64 `json:"id"`
	Ready  string `json:"ready,omitempty"`  // of the reply with id 0: the kernel's release
	Error  string `json:"error,omitempty"`  // the order could not be carried out
	Exit   int    `json:"exit,omitempty"`   // exit status of a program; −n when signal n ended it
	Output string `json:"output,omitempty"` // what it printed, or the line it answered
}
